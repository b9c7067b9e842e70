import { type ModelConfig, modelConfigSchema, type RunConfig } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import { presets } from './presets.ts';

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
  const own = overrides as Partial<ModelConfig>;
  const merged = {
    ...base,
    ...defined(own),
    vision: { ...base?.vision, ...defined(own.vision ?? {}) },
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

/** Sizes that do not fit each other, each with the value seen and what would do. */
function shapeProblems({ vision, text }: ModelConfig): Problem[] {
  const problems: Problem[] = [];
  const expect = (holds: boolean, path: string, message: string) => {
    if (!holds) problems.push({ path: `model.${path}`, message });
  };
  expect(
    vision.imageSize % vision.patchSize === 0,
    'vision.patchSize',
    `must divide vision.imageSize (${vision.imageSize}), is ${vision.patchSize}`,
  );
  expect(
    vision.width % vision.headWidth === 0,
    'vision.headWidth',
    `must divide vision.width (${vision.width}), is ${vision.headWidth}`,
  );
  expect(text.width % text.heads === 0, 'text.heads', `must divide text.width (${text.width}), is ${text.heads}`);
  expect(
    text.contextLength >= 3,
    'text.contextLength',
    `must hold start, a token and end (3), is ${text.contextLength}`,
  );
  for (const [name, tower] of Object.entries({ vision, text })) {
    expect(
      Number.isInteger(tower.width * tower.mlpRatio),
      `${name}.mlpRatio`,
      `times ${name}.width (${tower.width}) must be a whole number, is ${tower.width * tower.mlpRatio}`,
    );
  }
  return problems;
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
