import { InvalidArgumentError, Option } from 'commander';
import { ENGINE_NAMES, type EngineName } from '../engine/capabilities.ts';
import { isDeviceChoice } from '../engine/devices.ts';
import { WEIGHT_KINDS } from '../worker/checkpoint/checkpoint-format.ts';

/** Parser of an option that takes a whole number from `min` to `max`. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(
      `must be a whole number from ${min}${max === Number.MAX_SAFE_INTEGER ? ' up' : ` to ${max}`}.`,
    );
  };
}

export type EngineChoice = 'auto' | EngineName;

/** `--engine <name>` of every command that has one. */
export function engineOption(description: string): Option {
  return new Option('--engine <name>', description).choices(['auto', ...ENGINE_NAMES]);
}

/** `--device`: where the engine torch computes. */
export function deviceOption(description: string): Option {
  return new Option('--device <name>', description).argParser((text) => {
    if (!isDeviceChoice(text)) throw new InvalidArgumentError('use auto, cpu, cuda or cuda:N.');
    return text;
  });
}

/** `--weights <which>` of the commands that read a checkpoint's weights. */
export function weightsOption(): Option {
  return new Option('--weights <which>', 'the weights of the step, or their moving average (train.ema)')
    .choices([...WEIGHT_KINDS])
    .default('last');
}

/** A TCP port; 0 lets the system choose. */
export const portNumber = wholeNumber(0, 65_535);

/** Parser of an option that may be given several times, or once with commas. */
export function collected(text: string, before: readonly string[] = []): string[] {
  return [...before, ...text.split(',').filter((part) => part !== '')];
}

/** As `collected`, but commas belong to the value: for `--set a.b=[1,2]`. */
export function repeated(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}
