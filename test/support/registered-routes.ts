import type { FastifyInstance } from 'fastify';

export interface RegisteredRoute {
  readonly method: string;
  /** As it was registered, such as `/load/:filename`. */
  readonly path: string;
}

/** Every route of an app. Fastify prints them as a tree, in which a path stands under the one that it goes on. */
export function registeredRoutes(app: FastifyInstance): RegisteredRoute[] {
  const routes: RegisteredRoute[] = [];
  const above: string[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split('\n')) {
    const [, indent = '', segment = '', methods = ''] = /^([│ ]*)[├└]── (\S+)(?: \(([A-Z, ]+)\))?/.exec(line) ?? [];
    if (segment === '') continue;
    above.splice(indent.length / 4, Infinity, segment);
    const path = above.join('').replace(/(?<!\/)\*$/, '/*'); // The slash before a wildcard is not printed.
    if (methods !== '') routes.push(...methods.split(', ').map((method) => ({ method, path })));
  }
  return routes;
}
