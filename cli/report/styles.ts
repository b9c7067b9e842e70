/** The report's style sheet: light and dark after the reader's system, legible in print, nothing loaded from anywhere. */
export const REPORT_STYLES = `
:root { color-scheme: light dark; --ink:#1a1d21; --soft:#5c6570; --line:#d9dee4; --card:#f5f7f9; --page:#ffffff; --blue:#1f6feb; --faint:#a9c6f5; --red:#c2410c; --green:#15803d; --band:#fde6d8; }
@media (prefers-color-scheme: dark) { :root { --ink:#e8eaed; --soft:#a0a8b2; --line:#343a42; --card:#1d2127; --page:#14171b; --blue:#6cb0ff; --faint:#2f4d75; --red:#fb923c; --green:#4ade80; --band:#43281a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3em; }
h2 { font-size: 1.25rem; margin: 2.6em 0 .4em; padding-top: .5em; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6em 0 .4em; }
p { margin: .4em 0 .8em; max-width: 46em; }
.quiet, .note { color: var(--soft); }
.note { font-size: .85rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0; padding: 0; }
.figures div { background: var(--card); border-radius: 8px; padding: 12px 14px; }
.figures dt { font-size: .8rem; color: var(--soft); }
.figures dd { margin: 2px 0 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures small { display: block; font-size: .78rem; font-weight: 400; color: var(--soft); }
.chart { width: 100%; height: auto; display: block; margin-top: 8px; }
.chart text { font-size: 12px; fill: var(--soft); }
.chart .grid line { stroke: var(--line); stroke-width: 1; }
.chart polyline { fill: none; stroke-linejoin: round; }
polyline.line-main { stroke: var(--blue); stroke-width: 2; }
polyline.line-faint { stroke: var(--faint); stroke-width: 1; }
polyline.line-third { stroke: var(--green); stroke-width: 2; }
polyline.line-fourth { stroke: var(--red); stroke-width: 2; }
.chart .mark line { stroke: var(--red); stroke-width: 1.5; stroke-dasharray: 4 3; }
.chart .mark text { fill: var(--red); font-weight: 600; }
.chart .band { fill: var(--band); }
.matrix rect.right { fill: var(--green); }
.matrix rect.wrong { fill: var(--red); }
.chart .dot-main { fill: var(--blue); fill-opacity: .6; }
.chart .dot-other { fill: var(--red); fill-opacity: .6; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 16px; }
.pair .chart { border: 1px solid var(--line); border-radius: 8px; }
.pair figcaption { font-size: .85rem; color: var(--soft); }
.legend { font-size: .82rem; color: var(--soft); display: flex; gap: 18px; flex-wrap: wrap; }
.legend i { display: inline-block; width: 18px; height: 3px; margin-right: 6px; vertical-align: middle; }
.legend i.dot-main, .legend i.dot-other { width: 10px; height: 10px; border-radius: 5px; }
.legend i.dot-main { background: var(--blue); }
.legend i.dot-other { background: var(--red); }
.legend i.line-main { background: var(--blue); }
.legend i.line-faint { background: var(--faint); }
.legend i.line-third { background: var(--green); }
.legend i.line-fourth { background: var(--red); }
.bar { display: flex; height: 26px; border-radius: 5px; overflow: hidden; margin: 8px 0; }
.bar span { min-width: 1px; }
.bar.ground { background: var(--card); }
.tone-0 { background: #1f6feb; } .tone-1 { background: #8250df; } .tone-2 { background: #bf8700; } .tone-3 { background: #1a7f37; } .tone-4 { background: #cf222e; } .tone-5 { background: #57606a; } .tone-6 { background: #0a7ea4; } .tone-7 { background: #a475f9; }
.legend i.tone { width: 12px; height: 12px; border-radius: 3px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.number, th.number { text-align: right; }
figure { margin: 0; }
.tile { background: #fff; border: 3px solid transparent; border-radius: 8px; width: 66px; height: 66px; padding: 3px; }
.tile.right { border-color: var(--green); }
.row { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 8px 16px; align-items: center; padding: 6px 0; border-bottom: 1px solid var(--line); }
.row > :first-child { overflow-wrap: anywhere; }
.row .tiles { display: flex; flex-wrap: wrap; gap: 6px; }
.row .tiles figure { width: 66px; text-align: center; }
.row .tiles figcaption { font-size: .68rem; line-height: 1.15; color: var(--soft); overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 12px; }
.cards > div { display: flex; gap: 10px; background: var(--card); border-radius: 8px; padding: 10px; font-size: .82rem; line-height: 1.3; }
.cards ol { margin: 0; padding-left: 1.3em; }
.cards p { margin: 0 0 2px; }
.right-name { color: var(--green); font-weight: 600; }
.wrong-name { color: var(--red); }
.columns { columns: 3 220px; font-size: .8rem; padding: 0; list-style: none; }
details > summary { cursor: pointer; color: var(--blue); margin: .6em 0; }
pre { background: var(--card); border-radius: 8px; padding: 12px 14px; overflow: auto; font-size: .8rem; }
@media print { details { display: none; } h2 { break-after: avoid; } }
`;

/** For an image of a chart that stands by itself, as in a README: it brings its own colours and ground. */
export const CHART_IMAGE_STYLES = `
svg { --ink:#1a1d21; --soft:#5c6570; --line:#d9dee4; --page:#ffffff; --blue:#1f6feb; --faint:#a9c6f5; --red:#c2410c; --band:#fde6d8; background: var(--page); font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --ink:#e8eaed; --soft:#a0a8b2; --line:#343a42; --page:#14171b; --blue:#6cb0ff; --faint:#2f4d75; --red:#fb923c; --band:#43281a; } }
text { font-size: 12px; fill: var(--soft); }
.grid line { stroke: var(--line); }
polyline { fill: none; stroke-linejoin: round; }
.line-main { stroke: var(--blue); stroke-width: 2; }
.line-faint { stroke: var(--faint); stroke-width: 1; }
.mark line { stroke: var(--red); stroke-width: 1.5; stroke-dasharray: 4 3; }
.mark text { fill: var(--red); font-weight: 600; }
.band { fill: var(--band); }
`;
