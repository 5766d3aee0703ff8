import { createRequire } from 'node:module';
import type * as Undici from 'undici';

/**
 * The parts of undici that the Loader needs. undici's main file reads 80 more files for fetch, WebSockets, caches and
 * mocks: that would double the time which it takes to import, at each start and in the thread of each unlock.
 */

const require = createRequire(import.meta.url);

const Dispatcher = require('undici/lib/dispatcher/dispatcher.js') as typeof Undici.Dispatcher;
// The main file does the same.
Object.assign(Dispatcher.prototype, { request: require('undici/lib/api/api-request.js') as unknown });

export const Agent = require('undici/lib/dispatcher/agent.js') as typeof Undici.Agent;
export const DecoratorHandler = require('undici/lib/handler/decorator-handler.js') as typeof Undici.DecoratorHandler;
export const errors = require('undici/lib/core/errors.js') as typeof Undici.errors;

/** The only form that undici sends is its own. Its code is read here, since nothing but an upload needs it. */
export function createFormData(): Undici.FormData {
  const { FormData } = require('undici/lib/web/fetch/formdata.js') as Pick<typeof Undici, 'FormData'>;
  return new FormData();
}
