import path from 'node:path';
import { isImageTag } from '../archive/manifest.ts';
import { asRecord, parseJson } from '../json.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';

const FILE_NAME = 'unlock-receipt.json';
const VERSION = 1;
/** Bytes of a receipt. */
export const MAX_RECEIPT_LENGTH = 4 * 1024 * 1024;
const NANOSECONDS = /^-?\d{1,20}$/;
const IV = /^[0-9a-f]{32}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Where the receipt lies: what the last unlock brought into the engine, so that the next start knows it without a key. */
export function receiptPath(stateDir: string): string {
  return path.join(stateDir, FILE_NAME);
}

export function formatReceipt(loaded: UnlockedArchive): string {
  return JSON.stringify({ version: VERSION, ...loaded });
}

/**
 * Undefined for a receipt that makes no sense. A text that one wrong bit has changed into what the engine would refuse must
 * not reach the engine.
 */
export function parseReceipt(text: string): UnlockedArchive | undefined {
  const { version, identity, images } = asRecord(parseJson(text)) ?? {};
  const { length, modifiedNs, iv } = asRecord(identity) ?? {};
  const isSound =
    version === VERSION &&
    Number.isSafeInteger(length) &&
    hasForm(modifiedNs, NANOSECONDS) &&
    hasForm(iv, IV) &&
    Array.isArray(images) &&
    images.length > 0 &&
    images.every(isImage);
  return isSound ? ({ identity, images } as UnlockedArchive) : undefined;
}

function isImage(value: unknown): boolean {
  const { id, tags } = asRecord(value) ?? {};
  const areTags = Array.isArray(tags) && tags.every((tag) => typeof tag === 'string' && isImageTag(tag));
  return areTags && hasForm(id, DIGEST);
}

function hasForm(value: unknown, form: RegExp): boolean {
  return typeof value === 'string' && form.test(value);
}
