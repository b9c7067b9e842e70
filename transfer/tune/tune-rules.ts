import { type ParameterRule, parameterRules } from '../../models/parameter-rules.ts';
import type { TransferNetwork } from '../network.ts';
import type { Alignment } from './alignment.ts';
import type { RuledParameter } from './phase.ts';
import type { TuneRecipe } from './tune-recipe.ts';

/** How each of the network's parameters is trained. The head and an adapter have the whole learning rate. */
export function tuneRules(network: TransferNetwork, recipe: TuneRecipe): ParameterRule[] {
  const { method, weightDecay, backboneLrScale, layerDecay, unlockedGroups } = recipe;
  const rules = parameterRules(network.parameters, {
    optimizer: { weightDecay, decayRule: 'v4' },
    groups: [{ match: '^visual\\.', lrScale: backboneLrScale }],
    layerDecay: { image: layerDecay },
    lock: unlockedGroups === undefined ? {} : { image: { unlockedGroups } },
  });
  return rules.map((rule, i) => {
    const { name } = network.parameters[i]!;
    if (method === 'full' || !name.startsWith('visual.')) return rule;
    const trained = method === 'adapter' && network.adapter?.trainsToo(name) === true;
    return { ...rule, frozen: !trained, lrScale: 1 };
  });
}

/** Everything that could be trained, in a stable order: the network's parameters, then those of an alignment. */
export function ruledParameters(network: TransferNetwork, recipe: TuneRecipe, alignment?: Alignment): RuledParameter[] {
  const rules = tuneRules(network, recipe);
  const own = network.parameters.map((parameter, i) => ({ ...parameter, rule: rules[i]! }));
  if (alignment === undefined || alignment.parameters.length === 0) return own;
  const optimizer = { weightDecay: recipe.weightDecay, decayRule: 'v4' } as const;
  const beside = parameterRules(alignment.parameters, { optimizer });
  return [...own, ...alignment.parameters.map((parameter, i) => ({ ...parameter, rule: beside[i]! }))];
}

/** Numbers that are trained in the backbone and its adapter, and those of the backbone itself: the head belongs to the task. */
export function trainedCounts(network: TransferNetwork, parameters: readonly RuledParameter[]) {
  let trained = 0;
  let backbone = 0;
  for (const { name, variable, rule } of parameters) {
    if (network.source.weights.has(name)) backbone += variable.size;
    if (/^(visual|adapter)\./.test(name) && !rule.frozen) trained += variable.size;
  }
  return { trained, backbone };
}
