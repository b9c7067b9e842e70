import { CoveyError } from '../../common/errors.ts';
import type { Tensor, Tensor2D } from '../../engine/index.ts';
import type { TrainedModel } from '../objectives/objective.ts';

/** A model as evaluation sees it. Nothing here trains: batch norms go by their running statistics. */
export interface EvaluatedModel {
  /** h of the image tower, what transfer starts from: float32 [B, F] of normalised pixels. */
  readonly features: (x_BHWC: Tensor) => Tensor2D;
  /** Unit-length embeddings, float32 [B, D]; absent where no text tower is trained. */
  readonly embeddings?: {
    readonly image: (x_BHWC: Tensor) => Tensor2D;
    readonly text: (ids_BL: Int32Array, batch: number) => Tensor2D;
  };
}

interface WithFeatures {
  features(x_BHWC: Tensor, options: { readonly training: false }): Tensor2D;
}
interface WithTowers extends WithFeatures {
  encodeImage(x_BHWC: Tensor): Tensor2D;
  encodeText(ids_BL: Int32Array, batch: number): Tensor2D;
}

/** What of a trained model can be evaluated. A model of several parts is asked for the part that learns. */
export function evaluatedModel(model: TrainedModel): EvaluatedModel {
  const own = learningPart(model);
  if (own === undefined) throw new CoveyError('UNSUPPORTED', 'Cannot evaluate: the model has no image tower');
  const features = (x: Tensor) => own.features(x, { training: false });
  if (!isWithTowers(own)) return { features };
  return {
    features,
    embeddings: { image: (x) => own.encodeImage(x), text: (ids, batch) => own.encodeText(ids, batch) },
  };
}

/** The model itself, the query encoder of a momentum pair, or the part of a joint model that has most to show. */
function learningPart(model: object): WithFeatures | undefined {
  if (isWithFeatures(model)) return model;
  const parts = [
    ...('query' in model ? [model.query] : []),
    ...('parts' in model && Array.isArray(model.parts) ? model.parts : []),
  ];
  const found = parts
    .map((part) => (typeof part === 'object' && part !== null && 'model' in part ? part.model : part))
    .flatMap((part) => (typeof part === 'object' && part !== null ? (learningPart(part) ?? []) : []));
  return found.find(isWithTowers) ?? found[0];
}

const isWithFeatures = (model: object): model is WithFeatures =>
  'features' in model && typeof model.features === 'function';
const isWithTowers = (model: object): model is WithTowers =>
  isWithFeatures(model) && 'encodeText' in model && typeof model.encodeText === 'function';
