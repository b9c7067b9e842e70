import { isVit, type VisionConfig } from '../../common/config/vision-config.ts';
import { elementCount } from '../clip/parameter-shapes.ts';
import { newBackbone } from '../vision/backbone.ts';
import { isSiglipVit } from '../vision/vit-layout.ts';
import type { ExportFormat } from './export-formats.ts';
import { type Pretrained, shapesOf, usesQuickGelu, visionOf } from './pretrained.ts';

/** What a card says of the run, the data and the results; what is not known is said to be so. */
export interface ModelCardFacts {
  readonly name: string;
  /** Ends the sentence that says what it is: `pretrained with covey`. */
  readonly origin: string;
  /** In the order in which they are to be read. */
  readonly training: readonly (readonly [string, string | number])[];
  readonly data: readonly DatasetFacts[];
  readonly metrics: readonly (readonly [string, number])[];
  /** SPDX identifier of the licence under which the weights are given away, where one was chosen. */
  readonly license: string | undefined;
}

export interface DatasetFacts {
  readonly name: string;
  readonly sampleCount: number;
  /** Where the pictures are from and their licences, as the dataset's manifest says. */
  readonly sources: Readonly<Record<string, string>>;
}

const LIBRARIES: Readonly<Record<ExportFormat, string>> = {
  hf: 'transformers',
  open_clip: 'open_clip',
  onnx: 'transformers.js',
  tfjs: 'tfjs',
  covey: 'covey',
};

/** The README.md of an export, with the front matter that model hubs read. */
export function modelCard(format: ExportFormat, model: Pretrained, facts: ModelCardFacts): string {
  const task = model.kind === 'clip' ? 'zero-shot-image-classification' : 'image-feature-extraction';
  const front = [
    '---',
    ...(facts.license === undefined ? [] : [`license: ${facts.license}`]),
    `library_name: ${LIBRARIES[format]}`,
    `pipeline_tag: ${task}`,
    `tags: [covey, ${model.kind === 'clip' ? 'clip' : isVit(model.vision) ? 'vit' : 'resnet'}]`,
    '---',
  ];
  const sections = [
    `# ${facts.name}`,
    modelSection(model, facts.origin),
    `## Use\n\n${useSection(format, model)}`,
    `## Training\n\n${table(facts.training, 'How it was trained is not recorded.')}`,
    `## Data\n\n${dataSection(facts.data)}`,
    `## Results\n\n${table(facts.metrics, 'No evaluation was given when this was exported.')}`,
    `## Licence\n\n${licenseSection(facts)}`,
  ];
  return `${front.join('\n')}\n\n${sections.join('\n\n')}\n`;
}

function modelSection(model: Pretrained, origin: string): string {
  const vision = visionOf(model);
  const parameters = shapesOf(model).reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const activation = usesQuickGelu(model) ? 'quick GELU' : 'GELU';
  const lines = [
    `${model.kind === 'clip' ? 'A CLIP' : 'An image backbone'} of ${(parameters / 1e6).toFixed(2)} million parameters, ${origin}.`,
    '',
    `- Image tower: ${towerInWords(vision)}, pictures of ${vision.imageSize}×${vision.imageSize}, ${activation}.`,
  ];
  if (model.kind === 'clip') {
    const { text, embedDim } = model.config;
    lines.push(
      `- Text tower: ${text.layers} layers, width ${text.width}, ${text.contextLength} tokens of a vocabulary of ${text.vocabSize}.`,
      `- Shared embedding: ${embedDim} numbers.`,
    );
  } else {
    lines.push(`- Features: ${newBackbone(vision).featureWidth} numbers. There is no text tower.`);
  }
  lines.push(
    `- Pictures: shortest side to ${vision.imageSize} (bicubic, antialiased), centre crop, mean ${model.preprocess.mean.join(', ')}, deviation ${model.preprocess.std.join(', ')}.`,
  );
  return lines.join('\n');
}

function towerInWords(vision: VisionConfig): string {
  if (!isVit(vision))
    return vision.kind === 'resnet' ? `ResNet-${vision.depth}` : `CLIP's ResNet, blocks ${vision.blocks}`;
  const grid = vision.imageSize / vision.patchSize;
  const { layers, width, patchSize, pooling = 'tok' } = vision;
  return `ViT, ${layers} layers, width ${width}, ${grid}×${grid} patches of ${patchSize} pixels, pooling ${pooling}`;
}

function useSection(format: ExportFormat, model: Pretrained): string {
  const clip = model.kind === 'clip';
  const code = (language: string, ...lines: string[]) => [`\`\`\`${language}`, ...lines, '```'].join('\n');
  switch (format) {
    case 'hf':
      return code(
        'python',
        `from transformers import ${hfClass(model)}, ${clip ? 'CLIPProcessor' : 'CLIPImageProcessor'}`,
        `model = ${hfClass(model)}.from_pretrained(FOLDER)`,
        `processor = ${clip ? 'CLIPProcessor' : 'CLIPImageProcessor'}.from_pretrained(FOLDER)`,
      );
    case 'open_clip':
      if (clip)
        return code(
          'python',
          'import open_clip',
          "model, preprocess = open_clip.create_model_from_pretrained('local-dir:FOLDER')",
          "tokenizer = open_clip.get_tokenizer('local-dir:FOLDER')",
        );
      return 'The weights have open_clip’s keys `visual.*` up to its projection; open_clip makes whole models only, so load them into the image tower of a model of these sizes with `strict=False`.';
    case 'onnx':
      if (!clip) return '`onnx/vision_model.onnx`: `pixel_values` [batch, 3, side, side] → `pooler_output`.';
      return [
        code(
          'js',
          "import { pipeline } from '@huggingface/transformers';",
          "const classify = await pipeline('zero-shot-image-classification', FOLDER, { dtype: 'fp32' });",
        ),
        '',
        '`onnx/vision_model.onnx` and `onnx/text_model.onnx` give embeddings that are not normalised yet, `onnx/model.onnx` normalised ones and logits.',
      ].join('\n');
    case 'covey':
      return 'Begin a run with it (`train.initFrom: FOLDER` in run.yaml), give the folder to `covey finetune`, `probe` or `embed`, or turn it into another format with `covey import`. The keys are open_clip’s, a ResNet’s those of torchvision under `visual.`.';
    case 'tfjs':
      return [
        code(
          'js',
          `const vision = await tf.loadGraphModel('vision/model.json'); // pixel_values [batch, side, side, 3]`,
          ...(clip
            ? ["const text = await tf.loadGraphModel('text/model.json'); // input_ids [batch, tokens], padded with 0"]
            : []),
        ),
        '',
        clip ? 'The outputs have unit length.' : 'The output is the features.',
      ].join('\n');
  }
}

function hfClass(model: Pretrained): string {
  if (model.kind === 'clip') return 'CLIPModel';
  return isSiglipVit(model.vision) ? 'SiglipVisionModel' : 'CLIPVisionModel';
}

function dataSection(data: readonly DatasetFacts[]): string {
  if (data.length === 0) return 'What it was trained on is not recorded.';
  return data
    .flatMap(({ name, sampleCount, sources }) => [
      `- **${name}**: ${sampleCount} samples`,
      ...Object.entries(sources).map(([source, credit]) => `  - ${source}: ${credit}`),
    ])
    .join('\n');
}

function licenseSection({ license, data }: ModelCardFacts): string {
  const chosen =
    license === undefined
      ? 'No licence was chosen for these weights: choose one, and say so here, before you give them away.'
      : `The weights are given under ${license}.`;
  const named = data.some(({ sources }) => Object.keys(sources).length > 0);
  return `${chosen} ${named ? 'The pictures have the licences named under Data; some ask for attribution.' : 'The licences of the training data are not recorded; look them up where the data is from.'}`;
}

function table(rows: readonly (readonly [string, string | number])[], otherwise: string): string {
  if (rows.length === 0) return otherwise;
  return ['| | |', '|---|---|', ...rows.map(([name, value]) => `| ${name} | ${value} |`)].join('\n');
}
