import { CoveyError, type ErrorCode } from './errors.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'NOT_FOUND',
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  EROFS: 'PERMISSION_DENIED',
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EFBIG: 'RESOURCE_EXHAUSTED',
  EMFILE: 'RESOURCE_EXHAUSTED',
  ENFILE: 'RESOURCE_EXHAUSTED',
  ENOTDIR: 'INVALID_ARGUMENT',
  EEXIST: 'INVALID_ARGUMENT',
  EISDIR: 'INVALID_ARGUMENT',
  ENOTEMPTY: 'INVALID_ARGUMENT',
  ENAMETOOLONG: 'INVALID_ARGUMENT',
  EIO: 'UNAVAILABLE',
  ESTALE: 'UNAVAILABLE',
  EBUSY: 'UNAVAILABLE',
};

const ADVICE: Readonly<Partial<Record<ErrorCode, string>>> = {
  NOT_FOUND: '; there is no such file or folder',
  RESOURCE_EXHAUSTED: '; free space or raise the limit',
  PERMISSION_DENIED: '; give this user access',
  INVALID_ARGUMENT: '; a file lies where a folder is needed, or a folder where a file is',
};

/** A file-system failure as a CoveyError: ENOSPC → RESOURCE_EXHAUSTED, EACCES → PERMISSION_DENIED and so on. CoveyErrors and aborts pass. */
export function fromFileError(thrown: unknown, action: string, path: string): CoveyError {
  const errno = (thrown as NodeJS.ErrnoException | undefined)?.code;
  const code = errno === undefined ? undefined : CODES[errno];
  if (thrown instanceof CoveyError || code === undefined) return CoveyError.from(thrown);
  return new CoveyError(code, `Cannot ${action} ${path}: ${errno}${ADVICE[code] ?? ''}`, {
    cause: thrown,
    fields: { path, errno },
  });
}
