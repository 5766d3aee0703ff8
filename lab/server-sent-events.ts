export interface ReceivedEvent<Data> {
  readonly event: string;
  /** Empty when the event has none. */
  readonly id: string;
  readonly data: Data;
}

/**
 * The server-sent events of a body, as the Loader writes them: the lines `event`, `id` (which may be absent) and `data`,
 * in this order. Comments are left out.
 *
 * @throws Error when the response is another one, when an event has other lines, and when the body ends within an event
 */
export async function* readServerSentEvents<Data>(
  response: Response,
): AsyncGenerator<ReceivedEvent<Data>, void, undefined> {
  if (response.status !== 200 || response.headers.get('content-type') !== 'text/event-stream') {
    throw new Error(`${response.url} was answered ${response.status} ${await response.text()}`);
  }
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk as Uint8Array, { stream: true });
    const blocks = text.split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) {
      if (block.startsWith(':')) continue;
      const [, event, id = '', data] = /^event: (\w+)\n(?:id: ([\d.]+)\n)?data: (.*)$/.exec(block) ?? [];
      if (event === undefined || data === undefined) throw new Error(`this is no event: ${block}`);
      yield { event, id, data: JSON.parse(data) as Data };
    }
  }
  if (text !== '') throw new Error(`the body ended within an event: ${text}`);
}
