import { type ModelConfig, modelConfigSchema, type RunConfig } from '../common/config/run-config.ts';
import {
  isVit,
  type ModifiedResnetConfig,
  type ResnetVisionConfig,
  type VisionConfig,
  type VitConfig,
} from '../common/config/vision-config.ts';
import { CoveyError } from '../common/errors.ts';
import { presets } from './presets.ts';
import { vitLayout } from './vision/vit-layout.ts';

interface Problem {
  readonly path: string;
  readonly message: string;
}

/**
 * The complete model that `model:` of a run asks for: a preset, a full description, or a preset with overrides. Everything
 * that would only fail later (or, worse, not fail) is checked here, and every problem is named at once.
 * @throws CoveyError CONFIG_INVALID with `fields.problems: {path, message}[]`
 */
export function resolveModelConfig(model: RunConfig['model']): ModelConfig {
  const { preset: presetName, ...overrides } = typeof model === 'string' ? { preset: model } : model;
  const base = presetName === undefined ? undefined : presetByName(presetName);
  const own = overrides as Partial<Omit<ModelConfig, 'vision'>> & Pick<typeof overrides, 'vision'>;
  const merged = {
    ...base,
    ...defined(own),
    vision: { ...baseVision(base, own.vision?.kind), ...defined(own.vision ?? {}) },
    text: { ...base?.text, ...defined(own.text ?? {}) },
  };
  const parsed = modelConfigSchema.safeParse(merged);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => ({
      path: ['model', ...issue.path].join('.'),
      message: issue.message,
    }));
    throw invalid(problems);
  }
  const problems = shapeProblems(parsed.data);
  if (problems.length > 0) throw invalid(problems);
  return parsed.data;
}

/** Of the preset's tower what fits the kind wanted: of another kind of tower only the size of the pictures. */
function baseVision(base: ModelConfig | undefined, wanted: VisionConfig['kind']): Partial<VisionConfig> {
  if (base === undefined) return {};
  const { vision } = base;
  const kindOf = (kind: VisionConfig['kind']) => kind ?? 'vit';
  return wanted === undefined || kindOf(wanted) === kindOf(vision.kind) ? vision : { imageSize: vision.imageSize };
}

type Expect = (holds: boolean, path: string, message: string) => void;

/** Sizes that do not fit each other, each with the value seen and what would do. */
function shapeProblems({ vision, text }: ModelConfig): Problem[] {
  const problems: Problem[] = [];
  const expect: Expect = (holds, path, message) => {
    if (!holds) problems.push({ path: `model.${path}`, message });
  };
  if (isVit(vision)) checkVit(vision, expect);
  else checkResnet(vision, expect);
  expect(text.width % text.heads === 0, 'text.heads', `must divide text.width (${text.width}), is ${text.heads}`);
  expect(
    text.contextLength >= 3,
    'text.contextLength',
    `must hold start, a token and end (3), is ${text.contextLength}`,
  );
  checkMlp('text', text, expect);
  return problems;
}

function checkVit(vision: VitConfig, expect: Expect): void {
  const { imageSize, patchSize, width, headWidth } = vision;
  const { pooling, classToken, positions } = vitLayout(vision);
  expect(
    imageSize % patchSize === 0,
    'vision.patchSize',
    `must divide vision.imageSize (${imageSize}), is ${patchSize}`,
  );
  expect(width % headWidth === 0, 'vision.headWidth', `must divide vision.width (${width}), is ${headWidth}`);
  expect(pooling !== 'tok' || classToken, 'vision.classToken', 'must be true where vision.pooling is tok');
  expect(
    positions !== 'sincos' || width % 4 === 0,
    'vision.width',
    `must be a multiple of 4 where vision.positions is sincos, is ${width}`,
  );
  expect(
    pooling === 'avg' || vision.normBeforePool === undefined,
    'vision.normBeforePool',
    `is for vision.pooling avg, which is ${pooling}`,
  );
  checkMlp('vision', vision, expect);
}

function checkResnet(vision: ResnetVisionConfig | ModifiedResnetConfig, expect: Expect): void {
  const { imageSize } = vision;
  if (vision.kind === 'resnet') {
    const least = vision.stem === 'cifar' ? 8 : 32;
    expect(imageSize >= least, 'vision.imageSize', `must be at least ${least} for this ResNet, is ${imageSize}`);
    return;
  }
  const { width, headWidth } = vision;
  expect(imageSize % 32 === 0, 'vision.imageSize', `must be a multiple of 32 for a modified-resnet, is ${imageSize}`);
  expect(width % 2 === 0, 'vision.width', `must be even for a modified-resnet, is ${width}`);
  expect(
    (32 * width) % headWidth === 0,
    'vision.headWidth',
    `must divide 32 × vision.width (${32 * width}), is ${headWidth}`,
  );
}

function checkMlp(
  name: 'vision' | 'text',
  { width, mlpRatio }: { readonly width: number; readonly mlpRatio: number },
  expect: Expect,
): void {
  const hidden = width * mlpRatio;
  expect(
    Number.isInteger(hidden),
    `${name}.mlpRatio`,
    `times ${name}.width (${width}) must be a whole number, is ${hidden}`,
  );
}

function presetByName(name: string): ModelConfig {
  const preset = Object.hasOwn(presets, name) ? presets[name] : undefined;
  if (preset) return preset;
  const known = Object.keys(presets).join(', ');
  throw invalid([{ path: 'model', message: `no preset is called '${name}'; there are ${known}` }]);
}

function invalid(problems: readonly Problem[]): CoveyError {
  const list = problems.map(({ path, message }) => `${path}: ${message}`).join('; ');
  return new CoveyError('CONFIG_INVALID', `Cannot build the model: ${list}`, { fields: { problems } });
}

/** Drops keys whose value is undefined, so that they do not hide the preset's. */
function defined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as Partial<T>;
}
