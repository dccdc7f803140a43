"""The frame of the page of `mission watch`; its script fills it from `/state`, `/training` and `/flight`."""

from __future__ import annotations

from mission.storage.markup import escape


def watch_page(mission: str) -> str:
    """Return the page of a mission."""
    name = escape(mission)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: training</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css"><link rel="stylesheet" href="/watch.css"><script src="/watch.js" defer></script></head>
<body class="watch"><a class="skip" href="#main">Skip to the content</a>
<header><h1>{name}: training</h1><p id="status" role="status">Reading the run.</p>
<nav aria-label="sections"><a href="#phases">Phases</a><a href="#flight">Latest flight</a><a href="#curves">Curves</a></nav></header>
<main id="main" tabindex="-1">
<section id="phases" aria-labelledby="phases-title"><h2 id="phases-title">Phases</h2>
<div class="scroll card" tabindex="0" role="region" aria-label="table of the phases"><table><thead><tr><th scope="col">phase</th><th scope="col" class="left">state</th>
<th scope="col">vehicle steps</th><th scope="col">success</th><th scope="col">return</th><th scope="col">updates/s</th>
<th scope="col" class="left">gate</th></tr></thead><tbody id="rows"></tbody></table></div></section>
<section id="flight" aria-labelledby="flight-title"><h2 id="flight-title">Latest flight and hand-overs</h2>
<div class="tools"><span id="note" role="status"></span><label><input type="checkbox" id="follow" checked> show newer flights at once</label>
<button id="newer" hidden>Show the newer flights</button><button id="larger" aria-pressed="false">Larger</button></div>
<iframe id="report" title="report of the latest flights" sandbox="allow-scripts" hidden></iframe></section>
<section id="curves" aria-labelledby="curves-title"><h2 id="curves-title">Curves</h2><div id="training"></div></section>
</main></body></html>
"""
