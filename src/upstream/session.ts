import type { S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import type { ApiSession } from './api-session.ts';
import type { User } from './user.ts';

/** What a successful login gives. It never changes: work that begins with a session also ends with it. */
export interface Session {
  readonly user: User;
  readonly api: Pick<ApiSession, 'fetchKeyFragment' | 'fetchResource' | 'storeResource'>;
  readonly cdn: S3CdnManager;
  /** AES key of the resources' envelopes. @throws LoaderError `resource_key_missing` */
  resourceAesKey(): Buffer;
}
