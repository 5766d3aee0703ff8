import { Worker } from 'node:worker_threads';
import { takeConfig } from '../../src/config/config.ts';
import { KnownSecrets } from '../../src/log/known-secrets.ts';
import { Log } from '../../src/log/log.ts';
import { runLoader } from '../../src/run-loader.ts';
import { composeLoader } from '../../src/start.ts';

/**
 * A Loader with a route more, `POST /faults/{name}`, which answers and then has a fault that nothing catches. The text
 * of the request is in the error's message and properties.
 */

const FAULTS: Readonly<Record<string, (error: Error) => void>> = {
  timer: (error) => void setTimeout(() => throwIt(error), 10),
  'worker-message': (error) => {
    const worker = new Worker(`require('node:worker_threads').parentPort.postMessage('hello')`, { eval: true });
    worker.on('message', () => throwIt(error));
  },
  disposer: (error) => void failToDispose(error),
  rejection: (error) => void Promise.reject(error),
  // Less than a fault: the Loader goes on.
  warning: (error) => process.emitWarning(error),
};

function throwIt(error: Error): never {
  throw error;
}

async function failToDispose(error: Error): Promise<void> {
  await using _broken = { [Symbol.asyncDispose]: () => Promise.reject(error) };
  await Promise.resolve();
  throw new Error('what the disposal hides');
}

const { config, secrets: configSecrets } = takeConfig();
const secrets = new KnownSecrets(configSecrets);
const log = await Log.open({ level: config.logLevel, format: config.logFormat, filePath: config.logFile, secrets });
const parts = await composeLoader(config, { secrets, log });
parts.app.post<{ Params: { name: string }; Body: { text: string } }>('/faults/:name', (request, reply) => {
  const { text } = request.body;
  const error = Object.assign(new Error(`the text was ${text}`), { text, code: 'EFAULT', request: { text } });
  const { name } = request.params;
  // In a callback of the route, when the answer is out.
  if (name === 'route-callback') reply.raw.once('finish', () => throwIt(error));
  else reply.raw.once('finish', () => FAULTS[name]?.(error));
  return {};
});
await runLoader(parts);
