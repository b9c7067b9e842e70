import { maeOf, objectiveParts } from '../../common/config/loss-config.ts';
import { isMoco } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { batchNormOf, isVit } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import { maskedCounts } from '../../models/vision/patch-mask.ts';
import { patchCount, vitLayout } from '../../models/vision/vit-layout.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';

/** Objectives whose lanes can go through the model side by side: see `Objective.encodeTogether`. */
const SYNCHRONISED: readonly RunConfig['objective'][] = ['clip', 'siglip', 'simclr', 'supcon', 'supervised'];

/**
 * Whether the tower can drop or hide patches, and whether lanes are such that its batch norms can see them: asked where `checkModelFor` is.
 * @throws CoveyError CONFIG_INVALID
 */
export function checkTowerFor(
  config: Pick<RunConfig, 'run' | 'objective' | 'loss' | 'train'>,
  model: ModelConfig,
): void {
  const { run, train } = config;
  const { globalBatch, lanes, microBatch, patchDropout } = train;
  const laneBatch = globalBatch / lanes;
  const refuse: Refuse = (path, message, value) => {
    throw new CoveyError('CONFIG_INVALID', `Cannot start run ${run}: ${path} ${message}`, {
      fields: { problems: [{ path, message, value }] },
    });
  };
  if (patchDropout > 0 && !isVit(model.vision))
    refuse('train.patchDropout', `is for ViTs, model.vision.kind is ${model.vision.kind}`, patchDropout);
  if (objectiveParts(config).some(({ objective }) => objective === 'mae')) checkMasked(config, model, refuse);
  const { batchNormPlaces } = newBackbone(model.vision);
  if (batchNormPlaces === undefined) return;
  const { kind } = model.vision;
  if (microBatch !== undefined && microBatch !== laneBatch) {
    const message = `must be a whole lane (${laneBatch}) with a ${kind}, whose batch norms' statistics are a lane's, is ${microBatch}; use more lanes instead`;
    refuse('train.microBatch', message, microBatch);
  }
  if (batchNormOf(model.vision) === 'sync') {
    const key = 'model.vision.batchNorm';
    const { objective } = config;
    if (!SYNCHRONISED.includes(objective))
      refuse(key, `must be lane with objective ${objective}, which is not built for sync`, 'sync');
    if (train.gradCache)
      refuse(key, 'must be lane with train.gradCache: sync takes all held lanes side by side', 'sync');
    return;
  }
  // Each part of a joint objective goes through the tower by itself, and so does each view of MoCo.
  const views = objectiveParts(config).map(({ objective }) =>
    isMoco(objective) ? 1 : OBJECTIVE_INPUTS[objective].views,
  );
  const values = Math.min(...views.filter((count) => count > 0)) * laneBatch * batchNormPlaces;
  if (values < 2) {
    const message = `leaves the last batch norms of this ${kind} one value per channel, which has no variance: use fewer lanes or larger pictures`;
    refuse('train.lanes', message, lanes);
  }
}

type Refuse = (path: string, message: string, value: unknown) => never;

/** Whether a masked autoencoder has patches to see and to predict. */
function checkMasked({ loss }: Pick<RunConfig, 'loss'>, { vision }: ModelConfig, refuse: Refuse): void {
  if (!isVit(vision)) {
    const { kind } = vision;
    throw refuse('model.vision.kind', `must be vit with objective mae, which hides patches; is ${kind}`, kind);
  }
  const layout = vitLayout(vision);
  if (layout.pooling === 'map') {
    const message = 'must be tok or avg with objective mae, whose loss would never move the attention pool; is map';
    refuse('model.vision.pooling', message, layout.pooling);
  }
  const { maskRatio } = maeOf(loss);
  const patches = patchCount(layout);
  const { visible, hidden } = maskedCounts(patches, maskRatio);
  if (visible >= 1 && hidden >= 1) return;
  const message = `leaves ${visible} of ${patches} patches to see and ${hidden} to predict, and needs one of each; is ${maskRatio}`;
  refuse('loss.mae.maskRatio', message, maskRatio);
}
