// Runs before the first paint, so that a dark page does not flash white. The rest of the page is modules.
"use strict";
document.documentElement.dataset.theme = localStorage.getItem("opstream.theme") ?? "system";
