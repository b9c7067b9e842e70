import { CoveyError, type ErrorCode } from './errors.ts';

/** A CoveyError on its way between threads. */
export interface ErrorRecord {
  readonly code: ErrorCode;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
  /** Of the thread it comes from. */
  readonly stack?: string;
}

/** What crosses: fields may hold anything, only what survives JSON can. */
export function errorRecord(thrown: unknown): ErrorRecord {
  const { code, message, fields, stack } = CoveyError.from(thrown);
  const plain = JSON.parse(JSON.stringify(fields)) as Record<string, unknown>;
  return { code, message, fields: plain, ...(stack === undefined ? {} : { stack }) };
}

export function errorOf(record: ErrorRecord): CoveyError {
  const error = new CoveyError(record.code, record.message, { fields: record.fields });
  if (record.stack !== undefined) error.stack = record.stack;
  return error;
}
