import { html } from 'hono/html';
import type { PromptStudy, TemplateResult } from '../../transfer/prompts/prompt-study.ts';
import type { ClassSpread } from '../../transfer/prompts/sensitivity.ts';
import { type Html, lineChart } from '../report/line-chart.ts';
import { renderPage } from '../report/page.ts';
import { factsSection, percent } from './task-report.ts';

export interface PromptsPage {
  readonly origin: string;
  readonly data: string;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly study: PromptStudy;
  readonly classNames: readonly string[];
  readonly labels_N: Int32Array;
  /** A row's picture, as a data URI. */
  readonly picture: (row: number) => Promise<string>;
  readonly recipe: string;
}

const CLASSES_SHOWN = 40;
const FLIPS_SHOWN = 24;
const TEMPLATES_SHOWN = 500;

export async function promptsPage(page: PromptsPage): Promise<string> {
  const { study, classNames } = page;
  const { search, judge } = study.split;
  const { accuracy, flips } = study.sensitivity;
  const way = (name: string) => study.ways.find((one) => one.name === name)!;
  const judged = (name: string) => percent(way(name).judgedAccuracy);
  return renderPage({
    title: `Prompts: ${page.origin}`,
    summary: `${study.templates.length} templates for ${classNames.length} classes on ${search.length + judge.length} pictures of ${page.data}: chosen by ${search.length} of them, judged by the other ${judge.length}.`,
    createdAt: page.createdAt,
    headline: [
      {
        label: 'searched ensemble',
        value: judged('searched ensemble'),
        note: study.ensemble.length === 1 ? 'one template' : `${study.ensemble.length} templates`,
      },
      { label: 'all templates', value: judged('all templates') },
      { label: 'best single template', value: judged('best template') },
      { label: 'bare names', value: judged('bare names') },
      {
        label: 'spread over templates',
        value: `± ${percent(accuracy.deviation)}`,
        note: `${percent(accuracy.least)} to ${percent(accuracy.most)}`,
      },
      { label: 'pictures that some template flips', value: percent(flips.pictures) },
    ],
    sections: [
      waysSection(study),
      searchSection(study),
      templatesSection(study.templates),
      classesSection(study.sensitivity.classes),
      await flipsSection(page),
      factsSection({ model: page.origin, data: page.data }, page.recipe),
    ],
  });
}

/** ± one standard error of a share of so many pictures. */
function withError(share: number, count: number): string {
  return `${percent(share)} ± ${(100 * Math.sqrt((share * (1 - share)) / count)).toFixed(1)}`;
}

function waysSection({ ways, split }: PromptStudy): Html {
  const { search, judge } = split;
  return html`<section><h2>Ways to call the classes</h2>
<p>Whatever was chosen was chosen by the left column, so the right one alone counts. ± is one standard error of so many pictures.</p>
<table><thead><tr><th>way</th><th class="number">templates</th><th class="number">chosen by (${search.length})</th><th class="number">judged by (${judge.length})</th><th></th></tr></thead><tbody>${ways.map(
    ({ name, templates, searchAccuracy, judgedAccuracy }) =>
      html`<tr><th>${name}</th><td class="number">${templates.length}</td><td class="number">${percent(searchAccuracy)}</td><td class="number">${withError(judgedAccuracy, judge.length)}</td><td class="quiet">${templates.length === 1 ? templates[0]! : ''}</td></tr>`,
  )}</tbody></table></section>`;
}

function searchSection({ search, ensemble, templates }: PromptStudy): Html {
  const points = (pick: (step: (typeof search.steps)[number]) => number) =>
    search.steps.map((step, i) => [i + 1, 100 * pick(step)] as const);
  return html`<section><h2>The search</h2><p>Each step adds the template that helps most on the pictures to choose by; the ensemble ends where that is highest.</p>${lineChart(
    {
      description: 'Accuracy over the size of the ensemble',
      xLabel: 'templates',
      yLabel: 'accuracy, %',
      series: [
        {
          label: 'pictures to choose by',
          points: points(({ searchAccuracy }) => searchAccuracy),
          className: 'line-faint',
        },
        {
          label: 'pictures to judge by',
          points: points(({ judgedAccuracy }) => judgedAccuracy),
          className: 'line-main',
        },
      ],
      marks: [{ x: search.size, label: 'chosen' }],
    },
  )}<ol>${search.steps.map(
    ({ template }, i) => html`<li class="${i < ensemble.length ? '' : 'quiet'}">${templates[template]!.template}</li>`,
  )}</ol></section>`;
}

function templatesSection(results: readonly TemplateResult[]): Html {
  const sorted = [...results].sort((a, b) => b.accuracy - a.accuracy);
  const isCut = results.some(({ cutTexts }) => cutTexts > 0);
  return html`<section><h2>Every template</h2><p>Alone, on all pictures; <em>flips</em>: share of the pictures it classifies otherwise than all templates together${isCut ? '; cut: texts that are longer than the model’s context' : ''}.</p>
<table><thead><tr><th>template</th><th class="number">accuracy</th><th class="number">chosen by</th><th class="number">judged by</th><th class="number">flips</th>${isCut ? html`<th class="number">cut</th>` : ''}</tr></thead><tbody>${sorted
    .slice(0, TEMPLATES_SHOWN)
    .map(
      ({ template, accuracy, searchAccuracy, judgedAccuracy, disagreement, cutTexts }) =>
        html`<tr><th>${template}</th><td class="number">${percent(accuracy)}</td><td class="number">${percent(searchAccuracy)}</td><td class="number">${percent(judgedAccuracy)}</td><td class="number">${percent(disagreement)}</td>${isCut ? html`<td class="number">${cutTexts}</td>` : ''}</tr>`,
    )}</tbody></table></section>`;
}

function classesSection(classes: readonly ClassSpread[]): Html {
  const shown = classes.filter(({ least, most }) => most > least).slice(0, CLASSES_SHOWN);
  if (shown.length === 0) return html`<section><h2>Classes that change most</h2><p>None does.</p></section>`;
  return html`<section><h2>Classes that change most</h2><p>Share of a class’s pictures that are right, by the template.</p>
<table><thead><tr><th>class</th><th class="number">pictures</th><th class="number">least</th><th>with</th><th class="number">mean</th><th class="number">most</th><th>with</th></tr></thead><tbody>${shown.map(
    ({ name, pictures, least, worst, mean, most, best }) =>
      html`<tr><th>${name}</th><td class="number">${pictures}</td><td class="number">${percent(least)}</td><td class="quiet">${worst}</td><td class="number">${percent(mean)}</td><td class="number">${percent(most)}</td><td class="quiet">${best}</td></tr>`,
  )}</tbody></table></section>`;
}

async function flipsSection({ study, classNames, labels_N, picture }: PromptsPage): Promise<Html> {
  const { flips } = study.sensitivity;
  const cards: Html[] = [];
  for (const { row, templates } of flips.most.slice(0, FLIPS_SHOWN)) {
    const label = classNames[labels_N[row]!]!;
    const taken = study.reference_N[row]!;
    const isRight = taken === labels_N[row];
    cards.push(
      html`<div><img class="tile" src="${await picture(row)}" alt="${label}" width="66" height="66" loading="lazy"><div><p>${label}</p><p class="${isRight ? 'right-name' : 'wrong-name'}">all together: ${classNames[taken]!}</p><p class="note">${templates} of ${study.templates.length} templates say otherwise</p></div></div>`,
    );
  }
  return html`<section><h2>Predictions that flip</h2><p>${percent(flips.pictures)} of the pictures are classified by at least one template otherwise than by all together; a template differs on ${percent(flips.meanDisagreement)} of them on average. Those that flip most:</p><div class="cards">${cards}</div></section>`;
}
