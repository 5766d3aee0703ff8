import { randomUUID } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { setImmediate } from 'node:timers/promises';
import { loadConfig } from '../src/config/config.ts';
import { createLogger } from '../src/log/logger.ts';
import { defineProvider } from '../src/tasks/provider.ts';
import { openTaskDatabase } from '../src/tasks/task-database.ts';
import { TaskRunner } from '../src/tasks/task-runner.ts';
import { TaskStore } from '../src/tasks/task-store.ts';
import { JSON_VALUE, Type } from '../src/json-schemas.ts';
import type { JsonObject, JsonValue } from '../src/json.ts';

/** Looks like a prefetch in the history, and does nothing. */
const PROVIDER = 'prefetch';
const RESOURCE = { folder: 'models', filename: 'never-there.bin' };
const PARAMETERS: JsonObject = { resources: [RESOURCE] };
const RESULT: JsonValue = { resources: [{ ...RESOURCE, status: 'cached', bytes: 1_000_000, error: null, code: null }] };

/** Tasks without HTTP: in this process, over the database in a folder of which no Loader runs. */
export class LocalTasks {
  readonly #database: DatabaseSync;
  readonly #store: TaskStore;
  readonly #runner: TaskRunner;

  private constructor(database: DatabaseSync) {
    const logger = createLogger({ level: 'error' });
    const provider = defineProvider({
      name: PROVIDER,
      parameters: Type.Object({}),
      result: JSON_VALUE,
      isRepeatable: true,
      run: () => Promise.resolve(RESULT),
    });
    this.#database = database;
    this.#store = new TaskStore({ ...loadConfig({}), database, logger });
    this.#runner = new TaskRunner({ store: this.#store, providers: [provider], logger });
  }

  static async open(stateFolder: string): Promise<LocalTasks> {
    return new LocalTasks(await openTaskDatabase(stateFolder, createLogger({ level: 'error' })));
  }

  /** Runs tasks one after the other, each until its end is visible. */
  async runEmpty(count: number): Promise<void> {
    for (let index = 0; index < count; index++) {
      const task = this.#runner.create(PROVIDER, PARAMETERS);
      if (task === undefined) throw new Error('the task before still runs');
      while (this.#runner.find(task.uid).status === 'in_progress') await setImmediate();
    }
  }

  /**
   * Leaves a task behind as a killed Loader does. The next Loader begins it again, and it waits for a login: a task
   * that runs as long as one likes.
   */
  leaveUnfinished(): void {
    const [model] = this.#runner.history({ limit: 1 }).tasks;
    if (model === undefined) throw new Error('no task has run yet');
    const present = {
      uid: randomUUID(),
      status: 'in_progress',
      progress: 0,
      result: null,
      finishedAtMs: null,
    } as const;
    this.#store.insert({ ...model, ...present });
  }

  close(): void {
    this.#database.close();
  }
}
