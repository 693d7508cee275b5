import { FEATURE_STYLE } from "../analysis/featureReport.js";

/** The style sheet of reports on latents. */
export const REPORT_STYLE: string = `${FEATURE_STYLE}
.overview h2,.prompts h2{margin-bottom:.2rem}
article{scroll-margin-top:.5rem}
article:target{border-color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.panels{align-items:flex-start}
.charts{display:flex;flex-wrap:wrap;gap:1rem 2rem;flex:0 1 15rem}
.tokens{border-collapse:collapse;font-size:.85rem;flex:1 1 9rem;max-width:15rem;table-layout:fixed}
.tokens caption{text-align:left;font-size:.8rem;font-weight:600;color:var(--quiet);padding-bottom:.2rem}
.tokens td{padding:.05rem .4rem;font:13px/1.55 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;overflow:hidden;border-bottom:1px solid var(--line)}
.tokens td:last-child{width:4.6rem;text-align:right;color:var(--quiet);font-variant-numeric:tabular-nums}
.raises td:first-child{background:rgb(var(--raised)/.13)}
.lowers td:first-child{background:rgb(var(--lowered)/.12)}
article h3{margin-top:.9rem}
details{border-top:1px solid var(--line);padding:.35rem 0}
summary{cursor:pointer;font-size:.9rem;overflow-wrap:anywhere}
summary span{color:var(--quiet);margin-left:.6em}
details .examples{margin-top:.35rem}
details .examples li:last-child{border-bottom:0}
.number{color:var(--quiet);font-size:.8rem;margin-right:.7em}
.related{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.3rem;font-size:.85rem;font-variant-numeric:tabular-nums}
.related li{border:1px solid var(--line);border-radius:999px;padding:.05rem .65rem}
.related span{color:var(--quiet)}
.related a,.panel a,.index a{font-weight:600;text-decoration:underline;text-underline-offset:3px}
.choices{display:flex;flex-wrap:wrap;gap:.25rem .1rem;padding:.5rem 0 .3rem}
.choices input{position:absolute;opacity:0;pointer-events:none}
.choices label{cursor:pointer;border-radius:5px;padding:.1rem .25rem;border:1px solid var(--line);white-space:pre-wrap;overflow-wrap:anywhere;overflow:hidden;max-width:100%;line-height:1.6}
.choices label:hover{border-color:var(--accent)}
.choices input:checked+label{background:var(--accent);border-color:var(--accent);color:var(--page)}
.choices input:focus-visible+label{outline:2px solid var(--accent);outline-offset:2px}
.choices .panel{display:none;order:1;width:100%;margin-top:.5rem}
.choices input:checked+label+.panel{display:block}
.panel p{margin:0}
.panel ol{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.35rem}
.panel li{border-radius:6px;padding:.1rem .55rem;font-size:.9rem;font-variant-numeric:tabular-nums;border:1px solid var(--line);white-space:pre-wrap;overflow:hidden;overflow-wrap:anywhere;max-width:100%}
.panel li span{margin-left:.3em;font-size:.85rem}
.index{overflow-x:auto}
.index p{margin:.2rem .5rem}
.index table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
.index th{text-align:left;font-weight:600;color:var(--quiet);font-size:.8rem;padding:.2rem .5rem;white-space:nowrap}
.index td{padding:.25rem .5rem;border-top:1px solid var(--line);vertical-align:top}
.index td.text{white-space:pre-wrap;overflow-wrap:anywhere;min-width:12rem}
@media (hover:none){.text bdi[title]:hover::after{content:attr(title);position:fixed;left:0;right:0;bottom:0;padding:.6rem 1rem;background:var(--text);color:var(--page);font-size:.9rem;overflow-wrap:anywhere}}
@media (max-width:40rem){body{padding:1rem .7rem 2rem}.overview,article{padding:.8rem .8rem}.examples li{grid-template-columns:2.8rem 1fr;gap:.5rem}.panels{gap:.8rem 1rem}figure{width:100%;max-width:20rem}.charts{flex-basis:100%}.density text{font-size:18px}.tokens{max-width:none}}
@media print{nav{display:none}article{break-inside:avoid}}
`;
