import { NEVER } from '../../src/async/abort.ts';
import type { JsonObject, JsonValue } from '../../src/json.ts';
import type { Provider, TaskContext, TaskProgress } from '../../src/tasks/provider.ts';

/** What a run of a provider is given without a runner, and what it said. */
export class RecordedContext implements TaskContext {
  readonly signal: AbortSignal;
  readonly isUnattended: boolean;
  readonly reports: TaskProgress[] = [];
  readonly lines: string[] = [];

  constructor({ signal = NEVER, isUnattended = false }: Partial<Pick<TaskContext, 'signal' | 'isUnattended'>> = {}) {
    this.signal = signal;
    this.isUnattended = isUnattended;
  }

  report(progress: TaskProgress): void {
    this.reports.push(progress);
  }

  log(_level: string, text: string): void {
    this.lines.push(text);
  }

  async run(provider: Provider, parameters: JsonObject): Promise<JsonValue> {
    return await provider.prepare(parameters).work(this);
  }
}
