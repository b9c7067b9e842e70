import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { maxAbsDifference } from '../../cli/verify/comparison.ts';
import { type ReferenceEmbeddings, referenceEmbeddings } from '../../cli/verify/reference-embeddings.ts';
import { iconVerifySamples } from '../../cli/verify/verify-samples.ts';
import type { VisionConfig } from '../../common/config/run-config.ts';
import { loadEngine } from '../../engine/index.ts';
import type { PretrainedClip } from '../../models/formats/pretrained.ts';
import { exportTfjs } from '../../models/formats/tfjs/export-tfjs.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
// @ts-expect-error: the set-up scripts are plain JavaScript
import { findProgram } from '../../scripts/setup-steps.mjs';
import { smallConfig, smallWeights } from './small-model.ts';

const chromium: string | undefined =
  findProgram('chromium') ?? findProgram('chromium-browser') ?? findProgram('google-chrome');
const COUNT = 6;
const require = createRequire(import.meta.url);

const VIT = { imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 3 } as const;
const TOWERS: Readonly<Record<string, VisionConfig>> = {
  clip: smallConfig.vision,
  siglip: { ...VIT, pooling: 'map', lnPre: false, patchBias: true, layerNormEps: 1e-6 },
  'clip-resnet': { kind: 'modified-resnet', imageSize: 32, blocks: [1, 1, 1, 1], width: 8, headWidth: 32 },
};

/** Loads the graphs over HTTP with the stock browser builds and posts what they give. */
const PAGE = `<!doctype html><script src="/tf-core.js"></script><script src="/tf-backend-cpu.js"></script><script src="/tf-converter.js"></script>
<script type="module">
const post = (value) => fetch('/result', { method: 'POST', body: JSON.stringify(value) });
try {
  await tf.setBackend('cpu');
  const run = async (file, name, values, shape, dtype) => {
    const model = await tf.loadGraphModel(file);
    return [...(await model.predict({ [name]: tf.tensor(values, shape, dtype) }).data())];
  };
  const found = {};
  for (const [name, { pixels, ids, side, length }] of Object.entries(await (await fetch('/inputs')).json())) {
    found[name] = {
      images: await run('/model/' + name + '/vision/model.json', 'pixel_values', pixels, [${COUNT}, side, side, 3], 'float32'),
      texts: await run('/model/' + name + '/text/model.json', 'input_ids', ids, [${COUNT}, length], 'int32'),
    };
  }
  await post({ found, agent: navigator.userAgent });
} catch (error) { await post({ error: String(error.stack ?? error) }); }
</script>`;

describe.skipIf(!chromium)(
  'the tfjs export in a browser (skipped without chromium on PATH)',
  { timeout: 120_000 },
  () => {
    let dir: string;
    let server: Server;
    let browser: ChildProcess | undefined;
    const references = new Map<string, ReferenceEmbeddings>();
    let result: Promise<{
      readonly found?: Record<string, { readonly images: number[]; readonly texts: number[] }>;
      readonly agent?: string;
      readonly error?: string;
    }>;

    beforeAll(async () => {
      dir = await mkdtemp(path.join(tmpdir(), 'covey-browser-'));
      const engine = await loadEngine({ engine: 'auto', threads: 1 });
      for (const [name, vision] of Object.entries(TOWERS)) {
        const samples = await iconVerifySamples(COUNT, vision.imageSize);
        const config = { ...smallConfig, vision };
        const tokenizer = await loadTokenizer(
          trainBpe(samples.captions, { vocabSize: 600 }),
          smallConfig.text.contextLength,
        );
        const preprocess = { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] } as const;
        const model: PretrainedClip = { kind: 'clip', config, weights: smallWeights(config), preprocess, tokenizer };
        await exportTfjs(path.join(dir, 'model', name), model, '0');
        references.set(name, referenceEmbeddings(model, samples));
      }
      engine.close();
      const script = (name: string) =>
        path.join(path.dirname(require.resolve(`@tensorflow/tfjs-${name}`)), `tf-${name}.js`);
      const scripts: Record<string, string> = {
        '/tf-core.js': script('core'),
        '/tf-backend-cpu.js': script('backend-cpu'),
        '/tf-converter.js': script('converter'),
      };
      result = new Promise((resolve) => {
        server = createServer(async (request, response) => {
          const url = request.url ?? '/';
          if (url === '/') response.setHeader('content-type', 'text/html').end(PAGE);
          else if (url === '/inputs') {
            const inputs = [...references].map(([name, { pixels_BHWC, ids }]) => {
              const { imageSize: side } = TOWERS[name]!;
              const { contextLength: length } = smallConfig.text;
              return [name, { pixels: [...pixels_BHWC], ids: [...ids!], side, length }];
            });
            response.end(JSON.stringify(Object.fromEntries(inputs)));
          } else if (url === '/result') {
            let body = '';
            for await (const chunk of request) body += chunk;
            response.end();
            resolve(JSON.parse(body));
          } else if (scripts[url])
            response.setHeader('content-type', 'text/javascript').end(await readFile(scripts[url]));
          else if (/^\/model\/[\w./-]+$/.test(url) && !url.includes('..'))
            response.end(await readFile(path.join(dir, url)));
          else response.writeHead(404).end();
        });
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'];
      browser = spawn(
        chromium!,
        [...flags, `--user-data-dir=${path.join(dir, 'profile')}`, `http://127.0.0.1:${port}/`],
        {
          stdio: 'ignore',
        },
      );
    });
    afterAll(async () => {
      const ended = new Promise((resolve) => browser?.once('exit', resolve));
      browser?.kill('SIGKILL');
      await ended;
      server?.closeAllConnections();
      server?.close();
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    });

    it('loads over HTTP and gives covey’s embeddings', async () => {
      const { found, agent, error } = await result;
      expect(error).toBeUndefined();
      expect(agent).toContain('Chrome');
      expect(Object.keys(found!)).toEqual(Object.keys(TOWERS));
      for (const [name, { images, texts }] of Object.entries(found!)) {
        const { images: expectedImages, texts: expectedTexts } = references.get(name)!;
        expect(maxAbsDifference(images, expectedImages), name).toBeLessThanOrEqual(1e-4);
        expect(maxAbsDifference(texts, expectedTexts!), name).toBeLessThanOrEqual(1e-4);
      }
    });
  },
);
