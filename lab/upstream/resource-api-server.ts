import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import multipart from '@fastify/multipart';
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import jwt from 'jsonwebtoken';
import { deriveAesKey, deriveApiKey, deriveHardwareHash } from '../../src/security/key-derivation.ts';
import { encryptBuffer } from '../../src/security/envelope-cipher.ts';

export interface OriginUser {
  readonly email: string;
  readonly password: string;
  readonly role: string;
}

export interface ResourceApiServerOptions {
  readonly folder: string;
  readonly users: readonly OriginUser[];
  /** Secret of the tokens' HS256 signature. */
  readonly jwtSecret: string;
  readonly tokenLifetimeSeconds: number;
  readonly keyTemplates: { readonly hardware: string; readonly api: string };
  readonly keyFragment: Buffer;
}

/** Calls that were answered, by route: for tests that count logins. */
export type CallCounts = Map<string, number>;

/**
 * The stand-in Resource API (docs/protocol.md section 5): users, expiring tokens, files on disk.
 *
 * It is a development tool. Its passwords are plain text, and every program that can reach it can sign in.
 */
export class ResourceApiServer {
  readonly calls: CallCounts = new Map();
  /** The image archive's key is derived from it; a new release may have another. */
  keyFragment: Buffer;
  readonly #options: ResourceApiServerOptions;
  readonly #app: FastifyInstance;
  #url = '';
  /** Tokens of an earlier generation are refused, as if they had expired. */
  #generation = 0;

  constructor(options: ResourceApiServerOptions) {
    this.#options = options;
    this.keyFragment = options.keyFragment;
    this.#app = fastify({ logger: false, forceCloseConnections: true });
  }

  get url(): string {
    return this.#url;
  }

  /** Listens on a free loopback port. */
  async start(): Promise<void> {
    const app = this.#app;
    await app.register(multipart, { limits: { fileSize: 64 * 1024 * 1024 } });
    app.addHook('onResponse', async (request) => {
      const route = `${request.method} ${request.routeOptions.url ?? ''}`;
      this.calls.set(route, (this.calls.get(route) ?? 0) + 1);
      return Promise.resolve();
    });
    app.post<{ Body: { email?: string; password?: string } }>('/login', async (request, reply) => {
      const user = this.#options.users.find((known) => known.email === request.body.email);
      if (user === undefined) return await reply.code(401).send({ error: 'NoEmailFound' });
      if (user.password !== request.body.password) return await reply.code(409).send({ error: 'WrongPassword' });
      return { token: this.#sign(user) };
    });
    app.post('/resources/get/*', async (request, reply) => this.#get(request, reply));
    app.post('/resources/*', async (request, reply) => this.#put(request, reply));
    app.get('/binary-split/key-fragment', async (request, reply) => {
      if (this.#authenticate(request) === undefined) return await reply.code(401).send();
      return await reply.type('application/octet-stream').send(this.keyFragment);
    });
    this.#url = await app.listen({ host: '127.0.0.1', port: 0 });
  }

  /** Makes every token that was issued so far as good as expired. */
  expireTokens(): void {
    this.#generation++;
  }

  /** Puts a file where POST /resources/get finds it. `folder` is empty for cdn.yaml. */
  async store(folder: string, fileName: string, content: Buffer): Promise<void> {
    const target = this.#path(folder, fileName);
    await mkdir(path.dirname(target), { recursive: true });
    const unfinished = `${target}.${randomBytes(6).toString('hex')}`;
    await writeFile(unfinished, content);
    await rename(unfinished, target);
  }

  /** A file as `store` got it, or a Loader. */
  async read(folder: string, fileName: string): Promise<Buffer> {
    return await readFile(this.#path(folder, fileName));
  }

  async stop(): Promise<void> {
    await this.#app.close();
  }

  #sign(user: OriginUser): string {
    const claims = { nameid: user.email, unique_name: user.email, role: user.role, generation: this.#generation };
    return jwt.sign(claims, this.#options.jwtSecret, { expiresIn: this.#options.tokenLifetimeSeconds });
  }

  #authenticate(request: FastifyRequest): OriginUser | undefined {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    try {
      const claims = jwt.verify(token, this.#options.jwtSecret, { algorithms: ['HS256'] });
      if (typeof claims === 'string' || claims['generation'] !== this.#generation) return undefined;
      return this.#options.users.find((user) => user.email === claims['nameid']);
    } catch {
      return undefined;
    }
  }

  async #get(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const user = this.#authenticate(request);
    if (user === undefined) return await reply.code(401).send();
    const { fileName, password, hardware } = request.body as { fileName: string; password: string; hardware: string };
    let content: Buffer;
    try {
      content = await readFile(this.#path((request.params as { '*': string })['*'], fileName));
    } catch {
      return await reply.code(404).send({ error: 'ResourceNotFound' });
    }
    const { keyTemplates } = this.#options;
    const hardwareHash = deriveHardwareHash(keyTemplates.hardware, hardware);
    const apiKey = deriveApiKey(keyTemplates.api, { email: user.email, password, hardwareHash });
    return await reply.type('application/octet-stream').send(encryptBuffer(content, deriveAesKey(apiKey)));
  }

  async #put(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    if (this.#authenticate(request) === undefined) return await reply.code(401).send();
    const file = await request.file();
    if (file?.fieldname !== 'data') return await reply.code(400).send({ error: 'NoFile' });
    await this.store((request.params as { '*': string })['*'], file.filename, await file.toBuffer());
    return await reply.code(200).send();
  }

  /** Folder and file name as one encoded name each, so that no request can leave the folder of files. */
  #path(folder: string, fileName: string): string {
    const encode = (text: string) =>
      Buffer.from(text, 'utf8')
        .toString('base64url')
        .replace(/.{200}/g, '$&/');
    return path.join(this.#options.folder, `_${encode(folder)}`, `_${encode(fileName)}`);
  }
}
