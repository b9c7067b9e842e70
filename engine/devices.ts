import { CoveyError } from '../common/errors.ts';
import { type Addon, loadAddon } from './native/load.ts';

/** A device as people name it: `auto` is a GPU where there is one; `cuda` any of them, `cuda:1` that one. */
export type DeviceChoice = string;

export interface Device {
  readonly kind: 'cpu' | 'cuda';
  /** Among devices of its kind. */
  readonly index: number;
}

const FORM = /^(auto|cpu|cuda)(?::(\d+))?$/;

/** Whether the text names a device: auto, cpu, cuda or cuda:N. */
export function isDeviceChoice(text: string): boolean {
  const match = FORM.exec(text);
  return match !== null && (match[2] === undefined || match[1] === 'cuda');
}

/**
 * Which device a choice means where there are `gpus` of them. `workerNumber` spreads the workers of one machine over its GPUs, in turn, unless
 * the choice names one.
 *
 * @throws UNSUPPORTED where a GPU is asked for that is not there, INVALID_ARGUMENT for another text
 */
export function chooseDevice(choice: DeviceChoice, gpus: number, workerNumber: number): Device {
  if (!isDeviceChoice(choice)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot choose a device: use auto, cpu, cuda or cuda:N: value is ${choice}`,
    );
  }
  const [, kind, named] = FORM.exec(choice)!;
  if (kind === 'cpu' || (kind === 'auto' && gpus === 0)) return { kind: 'cpu', index: 0 };
  const index = named === undefined ? workerNumber % Math.max(1, gpus) : Number(named);
  if (index < gpus) return { kind: 'cuda', index };
  const found =
    gpus === 0 ? 'no GPU' : `${gpus} GPU${gpus === 1 ? '' : 's'} (cuda:0${gpus > 1 ? `…cuda:${gpus - 1}` : ''})`;
  throw new CoveyError(
    'UNSUPPORTED',
    `Cannot use device ${choice}: the native engine sees ${found}; build it against a CUDA libtorch (docs/gpu.md) on a machine with a driver, or use the device cpu`,
    { fields: { device: choice, gpus } },
  );
}

/** GPUs that the addon sees; 0 where it has no CUDA, there is no driver, or libtorch is too old. */
export function countGpus(addon: Addon): number {
  return addon.deviceCount('cuda');
}

/** What the engine torch could use here, and the libtorch it is built on. @throws UNSUPPORTED where the addon does not load */
export function findDevices(): { readonly devices: readonly string[]; readonly library: string } {
  const addon = loadAddon();
  const gpus = Array.from({ length: countGpus(addon) }, (_, index) => `cuda:${index}`);
  return { devices: ['cpu', ...gpus], library: addon.describe() };
}

/** The device that a choice means here. @throws UNSUPPORTED where a GPU is asked for that is not there or the addon does not load */
export function requireDevice(choice: DeviceChoice, workerNumber: number): Device {
  return chooseDevice(choice, countGpus(loadAddon()), workerNumber);
}
