import { ERROR, VALIDATION_ERROR } from '../schemas/error.ts';
import type { HttpApp } from '../schemas/responses.ts';
import { SCHEDULE } from '../schemas/schedule.ts';
import { BUSY, TASK, TASK_SUMMARY } from '../schemas/task.ts';
import { UNLOCK_STATUS } from '../schemas/unlock.ts';
import { registerDocsRoutes } from './docs-routes.ts';
import { registerHealthRoutes, type HealthRoutesOptions } from './health-routes.ts';
import { registerLoadRoutes, type LoadRoutesOptions } from './load-routes.ts';
import { registerLoginRoutes, type LoginRoutesOptions } from './login-routes.ts';
import { registerMetricsRoutes, type MetricsRoutesOptions } from './metrics-routes.ts';
import { registerResourceRoutes, type ResourceRoutesOptions } from './resource-routes.ts';
import { registerScheduleRoutes, type ScheduleRoutesOptions } from './schedule-routes.ts';
import { registerTaskRoutes, type TaskRoutesOptions } from './task-routes.ts';
import { registerUnlockRoutes, type UnlockRoutesOptions } from './unlock-routes.ts';
import { registerUploadRoutes, type UploadRoutesOptions } from './upload-routes.ts';

export type RoutesOptions = HealthRoutesOptions &
  MetricsRoutesOptions &
  LoginRoutesOptions &
  LoadRoutesOptions &
  ResourceRoutesOptions &
  UploadRoutesOptions &
  UnlockRoutesOptions &
  TaskRoutesOptions &
  ScheduleRoutesOptions;

const SHARED_SCHEMAS = [ERROR, VALIDATION_ERROR, TASK_SUMMARY, TASK, BUSY, SCHEDULE, UNLOCK_STATUS];

/** Registers every route, and the schemas that several of them share. */
export function registerRoutes(app: HttpApp, options: RoutesOptions): void {
  for (const schema of SHARED_SCHEMAS) app.addSchema(schema);
  registerDocsRoutes(app);
  registerHealthRoutes(app, options);
  registerMetricsRoutes(app, options);
  registerLoginRoutes(app, options);
  registerLoadRoutes(app, options);
  registerResourceRoutes(app, options);
  registerUploadRoutes(app, options);
  registerUnlockRoutes(app, options);
  registerTaskRoutes(app, options);
  registerScheduleRoutes(app, options);
}
