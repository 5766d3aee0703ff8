import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { it } from 'node:test';
import { LOG_FOLDER, S3_SKIP, SECRETS_FILE } from '../../lab/test-environment.ts';

it('no password, key or token of the whole run is in a log line or an answer', { skip: S3_SKIP }, () => {
  const secrets = new Set(
    readFileSync(SECRETS_FILE, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as string),
  );
  const files = readdirSync(LOG_FOLDER);
  assert.ok(secrets.size > 0 && files.length > 0, 'the run left no secrets or no logs to look at');
  let lines = 0;
  for (const file of files) {
    for (const line of readFileSync(path.join(LOG_FOLDER, file), 'utf8').split('\n')) {
      lines++;
      for (const secret of secrets) assert.ok(!line.includes(secret), `${file}: a secret is in ${line.slice(0, 100)}`);
      // Tokens are new in each run; every JWT begins like this.
      assert.ok(!/eyJ[\w-]{10,}\./.test(line), `${file}: a token is in ${line.slice(0, 100)}`);
      assert.ok(!/X-Amz-Signature|Authorization: AWS4/i.test(line), `${file}: a signature is in a log line`);
    }
  }
  console.log(`${lines} lines of ${files.length} files hold none of ${secrets.size} secrets`);
});
