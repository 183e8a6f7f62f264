"""The page's style: light and dark as the reader's system is, narrow and wide screens, print."""

from engine.figures.colours import MISSED

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #5c5c5c; --line: #d4d4d8;
  --card: #f5f5f6; --link: #005a9c; --warn: #fff4e5; --edge: MISSED; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #17181b; --faint: #a8a8ad;
  --line: #3d3e44; --card: #222327; --link: #8cc8f2; --warn: #33261a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem;
  border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; overflow-wrap: anywhere; }
p, dd, li, figcaption { max-width: 62rem; overflow-wrap: anywhere; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, "SFMono-Regular", Consolas, monospace; font-size: .9em; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--card); padding: .75rem; border-radius: 4px; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; background: var(--paper); padding: .5rem; }
.faint { color: var(--faint); }
.note, .warning { background: var(--card); border-left: 4px solid var(--line); padding: .5rem .75rem; }
.warning { background: var(--warn); border-left-color: var(--edge); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr));
  gap: .75rem; margin: 1rem 0; }
.tile { background: var(--card); border-radius: 6px; padding: .6rem .8rem; }
.tile dt { color: var(--faint); font-size: .9rem; }
.tile dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tile dd small { display: block; font-size: .8rem; color: var(--faint); line-height: 1.35; }
dl:not(.tiles) { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1.25rem; }
dl:not(.tiles) > dt { color: var(--faint); }
dl:not(.tiles) > dd { margin: 0; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--line);
  font-weight: 400; }
td:not(.number) { min-width: 8rem; }
th code { white-space: nowrap; }
thead th { font-weight: 600; vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 0; }
figure.plot { margin: 1rem 0; }
figcaption { color: var(--faint); font-size: .88rem; padding-top: .2rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
.plot img { background: #fff; width: 100%; }
.plot.half { max-width: 40rem; }
.row { display: grid; gap: .6rem; margin: .5rem 0 1rem; }
.row.case { grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
@media (min-width: 56rem) { .row.case:has(.stack) { grid-template-columns: 1fr 1fr .465fr; } }
.stack { display: grid; gap: .6rem; align-content: start;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.stack img { image-rendering: pixelated; }
.row.small { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.row img { width: 100%; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem;
  font-size: .88rem; }
.legend span { display: inline-block; width: 1em; height: 1em; margin-right: .4em; vertical-align: -.12em;
  border: 1px solid #808080; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--faint); font-size: .88rem; }
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --faint: #444;
    --card: #f3f3f3; --link: #000; --warn: #f3f3f3; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip { display: none; }
  .row.case { grid-template-columns: 1fr 1fr; }
  .row.case:has(.stack) { grid-template-columns: 1fr 1fr .465fr; }
  .wide { overflow: visible; }
  .plot.half { max-width: 9cm; }
  figure, tr, .tile, .keep { break-inside: avoid; }
  table { font-size: 7.5pt; }
  th, td { padding-right: .5rem; }
  .number { white-space: normal; }
  td:not(.number) { min-width: 0; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
""".replace("MISSED", MISSED).strip()
"""CSS; names neither files nor addresses. What warns has the colour of what is missed."""
