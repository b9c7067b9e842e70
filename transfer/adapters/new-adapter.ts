import { CoveyError } from '../../common/errors.ts';
import type { ParameterSpec } from '../../models/clip/parameter-shapes.ts';
import type { Adapter, AdapterOptions } from './adapter.ts';
import { bottleneckAdapter } from './bottleneck.ts';
import { convResidualAdapter } from './conv-residual.ts';
import { loraAdapter } from './lora.ts';

/** @throws CoveyError UNSUPPORTED where the backbone has no place for such an adapter */
export function newAdapter(options: AdapterOptions, backbone: readonly ParameterSpec[]): Adapter {
  const adapter = make(options, backbone);
  if (adapter.specs.length > 0) return adapter;
  const needed =
    options.kind === 'conv'
      ? 'a ResNet; for a transformer use lora or bottleneck'
      : 'a transformer; for a ResNet use conv';
  throw new CoveyError('UNSUPPORTED', `Cannot adapt this backbone: ${options.kind} adapters need ${needed}`, {
    fields: { kind: options.kind },
  });
}

function make(options: AdapterOptions, backbone: readonly ParameterSpec[]): Adapter {
  switch (options.kind) {
    case 'lora':
      return loraAdapter(options, backbone);
    case 'bottleneck':
      return bottleneckAdapter(options, backbone);
    case 'conv':
      return convResidualAdapter(options, backbone);
  }
}
