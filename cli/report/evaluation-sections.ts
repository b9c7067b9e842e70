import { html } from 'hono/html';
import type { Html } from './line-chart.ts';
import type { EvaluationRecord, ReportPicture } from './report-data.ts';

/** What the model makes of pictures it never saw: retrieval both ways, mistakes, every class. */
export function evaluationSections(evaluation: EvaluationRecord): Html {
  return html`${scoreSection(evaluation)}${imageToTextSection(evaluation)}${textToImageSection(evaluation)}${confusionSection(evaluation)}${classSection(evaluation)}`;
}

function scoreSection(evaluation: EvaluationRecord): Html {
  const { heldOut, classes, pictures, top1, top5, medianRank, textToImageTop1, textToImageTop5 } = evaluation;
  return html`<section><h2>Zero-shot on unseen pictures</h2>
<p>${pictures} pictures of <strong>${heldOut}</strong>, none of which was in training, each classified among ${classes} names by the cosine of its embedding with each name's.</p>
<table><thead><tr><th></th><th class="number">first</th><th class="number">among the first five</th><th class="number">by chance, first</th></tr></thead><tbody>
<tr><th>picture → name</th><td class="number">${percent(top1)}</td><td class="number">${percent(top5)}</td><td class="number">${percent(1 / classes)}</td></tr>
<tr><th>name → picture</th><td class="number">${percent(textToImageTop1)}</td><td class="number">${percent(textToImageTop5)}</td><td class="number">${percent(1 / pictures)}</td></tr>
</tbody></table>
<p class="note">Median place of the right name: ${medianRank} of ${classes}.</p></section>`;
}

function imageToTextSection({ imageToText }: EvaluationRecord): Html {
  return html`<section><h2>Picture → name</h2>
<p>Pictures drawn at random, with the five closest names. <span class="right-name">✓ the right one</span></p>
<div class="cards">${imageToText.map(
    ({ picture, found }) =>
      html`<div>${tile(picture, 'tile')}<div><p class="quiet">${picture.label}</p><ol>${found.map(
        ({ className, right }) => html`<li class="${right ? 'right-name' : ''}">${className}${right ? ' ✓' : ''}</li>`,
      )}</ol></div></div>`,
  )}</div></section>`;
}

function textToImageSection({ textToImage }: EvaluationRecord): Html {
  return html`<section><h2>Name → picture</h2>
<p>Names drawn at random, with the closest of the unseen pictures. <span class="right-name">✓ and a green frame: the right one</span></p>
${textToImage.map(
  ({ query, found }) =>
    html`<div class="row"><div><strong>${query}</strong></div><div class="tiles">${found.map(
      (picture) =>
        html`<figure>${tile(picture, picture.right ? 'tile right' : 'tile')}<figcaption>${picture.right ? '✓ ' : ''}${picture.label}</figcaption></figure>`,
    )}</div></div>`,
)}</section>`;
}

function confusionSection({ confusions }: EvaluationRecord): Html {
  if (confusions.length === 0) return html``;
  return html`<section><h2>Its surest mistakes</h2>
<p>Wrong pictures whose guess was closest. Left the picture, right the unseen drawing of what it was taken for.</p>
<div class="cards">${confusions.map(
    ({ picture, guess, guessPicture }) =>
      html`<div>${tile(picture, 'tile')}${guessPicture ? tile(guessPicture, 'tile') : ''}<div><p>${picture.label}</p><p class="wrong-name">taken for ${guess.className}</p><p class="note">cosine ${guess.similarity.toFixed(2)}</p></div></div>`,
  )}</div></section>`;
}

const PLACES = [
  { label: 'first', from: 1, to: 1 },
  { label: '2nd to 5th', from: 2, to: 5 },
  { label: '6th to 20th', from: 6, to: 20 },
  { label: '21st to 100th', from: 21, to: 100 },
  { label: 'below', from: 101, to: Number.POSITIVE_INFINITY },
];

function classSection({ ranks, classes }: EvaluationRecord): Html {
  return html`<section><h2>Every class</h2>
<p>Place of the right name among all ${classes}.</p>
${PLACES.map(({ label, from, to }) => {
  const names = ranks
    .filter(({ rank }) => rank >= from && rank <= to)
    .sort((a, b) => a.rank - b.rank || (a.className < b.className ? -1 : 1));
  return html`<details><summary>${label}: ${names.length} (${percent(names.length / Math.max(1, ranks.length))})</summary><ul class="columns">${names.map(
    ({ className, rank }) => html`<li>${className} <span class="quiet">${rank}</span></li>`,
  )}</ul></details>`;
})}</section>`;
}

function tile(picture: ReportPicture, className: string): Html {
  return html`<img class="${className}" src="${picture.source}" alt="${picture.label}" width="66" height="66" loading="lazy">`;
}

const percent = (share: number) => `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;
