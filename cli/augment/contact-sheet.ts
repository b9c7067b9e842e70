import sharp, { type OverlayOptions } from 'sharp';
import type { RgbImage } from '../../models/preprocess/decode.ts';

export interface SheetCell {
  readonly image: RgbImage;
  readonly title: string;
  readonly lines: readonly string[];
}

export interface Sheet {
  readonly title: string;
  /** Cells of one row belong to one picture; the first is the original. */
  readonly rows: readonly (readonly SheetCell[])[];
  /** Box that every picture is shown in, pixels; larger ones are shrunk, smaller ones keep their size. */
  readonly side: number;
}

const MARGIN = 16;
const GAP = 12;
const TITLE_HEIGHT = 36;
const LINE_HEIGHT = 14;
const CELL_WIDTH_MIN = 112;

/** A labelled sheet as PNG. */
export async function renderSheet(sheet: Sheet): Promise<Uint8Array> {
  const { rows, side } = sheet;
  const columns = Math.max(...rows.map((row) => row.length));
  const cellWidth = Math.max(side, CELL_WIDTH_MIN);
  const width = 2 * MARGIN + columns * cellWidth + (columns - 1) * GAP;
  const overlays: OverlayOptions[] = [];
  const texts: string[] = [text(MARGIN, MARGIN + 14, sheet.title, 'title')];
  let top = MARGIN + TITLE_HEIGHT;
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      const left = MARGIN + column * (cellWidth + GAP);
      overlays.push(await placed(cell.image, { left, top, width: cellWidth, side }));
      const under = top + side + LINE_HEIGHT;
      texts.push(text(left, under, cell.title, 'head'));
      cell.lines.forEach((line, i) => {
        texts.push(text(left, under + (i + 1) * LINE_HEIGHT, line, 'line'));
      });
    }
    const lines = Math.max(...row.map((cell) => cell.lines.length));
    top += side + (lines + 1) * LINE_HEIGHT + 2 * GAP;
  }
  const height = top - GAP + MARGIN;
  overlays.push({ input: Buffer.from(labels(width, height, texts)), left: 0, top: 0 });
  return sharp({ create: { width, height, channels: 3, background: '#f3f3f1' } })
    .composite(overlays)
    .png()
    .toBuffer();
}

/** A picture in the middle of its box. */
async function placed(
  { pixels, width, height }: RgbImage,
  box: { readonly left: number; readonly top: number; readonly width: number; readonly side: number },
): Promise<OverlayOptions> {
  const { data, info } = await sharp(pixels, { raw: { width, height, channels: 3 } })
    .resize(box.side, box.side, { fit: 'inside', withoutEnlargement: true })
    .png()
    .toBuffer({ resolveWithObject: true });
  const left = box.left + Math.floor((box.width - info.width) / 2);
  const top = box.top + Math.floor((box.side - info.height) / 2);
  return { input: data, left, top };
}

function labels(width: number, height: number, texts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="DejaVu Sans, Arial, sans-serif">
<style>.title{font-size:15px;font-weight:bold;fill:#222}.head{font-size:11px;font-weight:bold;fill:#222}.line{font-size:11px;fill:#555}</style>
${texts.join('\n')}
</svg>`;
}

function text(x: number, y: number, content: string, kind: 'title' | 'head' | 'line'): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `<text x="${x}" y="${y}" class="${kind}">${escaped}</text>`;
}
