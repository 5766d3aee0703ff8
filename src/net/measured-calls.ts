import type { Dispatcher } from 'undici';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { findFault, toNetworkFault, type NetworkFaultKind } from './network-fault.ts';
import { DecoratorHandler } from './undici-parts.ts';

/** How a call over the network went. */
export type MeasuredCall =
  | { readonly kind: 'answer'; readonly method: string; readonly status: number; readonly seconds: number }
  /** Before an answer or within its body. */
  | { readonly kind: 'fault'; readonly method: string; readonly fault: NetworkFaultKind | 'aborted' };

export type OnCall = (call: MeasuredCall) => void;

/** What undici and Node say when a caller has broken its call off. */
const ABORTED: readonly (string | undefined)[] = ['UND_ERR_ABORTED', 'ABORT_ERR', undefined];

/**
 * Tells `onCall` of each call: at its answer's headers, with the time since the call began, and at its failure. A body
 * that is sent counts, and so does the wait for a connection.
 */
export function measureCalls(onCall: OnCall): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) => dispatch(options, new MeasuringHandler(handler, options.method, onCall));
}

class MeasuringHandler extends DecoratorHandler implements Dispatcher.DispatchHandler {
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #method: string;
  readonly #onCall: OnCall;
  readonly #startedAtMs = performance.now();

  constructor(handler: Dispatcher.DispatchHandler, method: string, onCall: OnCall) {
    super(handler);
    this.#handler = handler;
    this.#method = method;
    this.#onCall = onCall;
  }

  onResponseStart(...args: Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseStart']>>): void {
    const status = args[1];
    const seconds = (performance.now() - this.#startedAtMs) / 1000;
    this.#onCall({ kind: 'answer', method: this.#method, status, seconds });
    this.#handler.onResponseStart?.(...args);
  }

  onResponseError(...args: Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseError']>>): void {
    this.#onCall({ kind: 'fault', method: this.#method, fault: faultOf(args[1]) });
    this.#handler.onResponseError?.(...args);
  }
}

function faultOf(error: unknown): NetworkFaultKind | 'aborted' {
  const known = findFault(error);
  if (known !== undefined) return known.kind;
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'late';
  if (error instanceof LoaderError || ABORTED.includes(systemErrorCode(error))) return 'aborted';
  return toNetworkFault(error, '').kind;
}
