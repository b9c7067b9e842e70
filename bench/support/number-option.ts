import { CoveyError } from '../../common/errors.ts';

/** A number of the command line, not negative; undefined where it was not given. @throws CoveyError INVALID_ARGUMENT */
export function numberOption(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isFinite(value) && value >= 0 && text.trim() !== '') return value;
  throw new CoveyError('INVALID_ARGUMENT', `Cannot read --${name}: ${JSON.stringify(text)} is no number`);
}
