"use strict";
// Paints what is in view. Everything in view is painted, however much it is; dense pictures only get thinner lines.

const DENSE = 1500;
const VERY_DENSE = 6000;
const FONT = "11px system-ui, -apple-system, 'Segoe UI', sans-serif";

function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const brush = canvas.getContext("2d");
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  brush.font = FONT;
  return brush;
}

function drawLanes(brush, scene) {
  const { view } = scene;
  drawLaneGround(brush, scene);
  drawSpans(brush, scene);
  drawArrows(brush, scene);
  drawEvents(brush, scene);
  drawMarks(brush, scene);
  brush.fillStyle = cssColour("--ground");
  brush.fillRect(0, 0, GUTTER - 6, view.height);
  drawLaneNames(brush, scene);
}

function drawLaneGround(brush, { view }) {
  brush.strokeStyle = cssColour("--rule");
  brush.lineWidth = 1;
  for (const lane of view.lanes) {
    if (!lane || lane.kind === "disk") continue;
    brush.beginPath();
    brush.moveTo(0, Math.round(lane.top) + 0.5);
    brush.lineTo(view.width, Math.round(lane.top) + 0.5);
    brush.stroke();
  }
  brush.strokeStyle = cssColour("--line");
  for (const lane of view.lanes) {
    if (!lane || lane.kind === "member" || lane.kind === "nemesis") continue;
    brush.beginPath();
    brush.moveTo(GUTTER, lane.middle);
    brush.lineTo(view.width, lane.middle);
    brush.stroke();
  }
}

function drawLaneNames(brush, { view }) {
  brush.textBaseline = "middle";
  for (const lane of view.lanes) {
    if (!lane) continue;
    const small = lane.kind === "disk";
    brush.fillStyle = cssColour(small ? "--faint" : "--ink");
    brush.font = small ? FONT : `600 13px system-ui, -apple-system, 'Segoe UI', sans-serif`;
    brush.fillText(small ? `${lane.name} disk` : lane.name, small ? 26 : 12, lane.middle);
    if (lane.kind === "member" || lane.kind === "client") drawLaneTitle(brush, lane);
  }
  brush.font = FONT;
}

function drawLaneTitle(brush, lane) {
  brush.fillStyle = cssColour("--faint");
  brush.font = FONT;
  if (lane.kind === "member") brush.fillText("member", 12, lane.middle + 15);
  else if (lane.name.length < 4) brush.fillText("client", 40, lane.middle);
}

// ---------------------------------------------------------------- spans

function drawSpans(brush, scene) {
  const painters = { life: drawLife, down: drawDown, frozen: drawFrozen, fault: drawFault, write: drawWrite, hold: drawHold };
  const order = ["life", "frozen", "down", "fault", "write", "hold"];
  const rows = { fault: [], hold: {} };
  for (const kind of order) {
    for (const span of scene.story.spans) {
      if (span.kind !== kind) continue;
      const lane = scene.view.lanes[span.lane];
      if (lane) drawSpan(brush, scene, span, lane, painters[kind], rows);
    }
  }
}

function drawSpan(brush, scene, span, lane, paint, rows) {
  const { view, looks, story } = scene;
  if (looks.hiddenEvents.has(looks.eventClass[story.events.kind[span.event]]) && span.kind !== "life") return;
  const left = xOf(view, view.ordered ? span.event : span.from);
  const right = Math.max(left + 1.5, xOf(view, placeOfTime(view, span.to)));
  const row = rowOf(rows, span, left, right);
  if (right < GUTTER || left > view.width) return;
  paint(brush, scene, span, lane, Math.max(left, GUTTER - 6), Math.min(right, view.width + 6), row);
}

// Bars that overlap stand below each other.
function rowOf(rows, span, left, right) {
  if (span.kind !== "fault" && span.kind !== "hold") return 0;
  const taken = span.kind === "fault" ? rows.fault : (rows.hold[span.lane] = rows.hold[span.lane] || []);
  let row = taken.findIndex((end) => end <= left + 0.5);
  if (row < 0) row = taken.length;
  taken[row] = right;
  return row;
}

function drawLife(brush, { view, looks }, span, lane, left, right) {
  brush.fillStyle = termFill(looks, span.term, span.text);
  brush.fillRect(left, lane.top + 1, right - left, lane.height - 2);
  brush.strokeStyle = termLine(looks, span.term, span.text);
  brush.lineWidth = ROLE_WEIGHT[span.text] || 1.3;
  brush.setLineDash(span.text.endsWith("candidate") ? [4, 3] : []);
  brush.beginPath();
  brush.moveTo(left, lane.middle);
  brush.lineTo(right, lane.middle);
  brush.stroke();
  brush.setLineDash([]);
  const label = span.text === "leader" ? `LEADER  term ${span.term}` : span.text === "follower" ? `term ${span.term}` : `${span.text} ${span.term}`;
  inside(brush, label, left + 5, right - 4, lane.top + 11, termLine(looks, span.term, "leader"), span.text === "leader");
}

function inside(brush, text, left, right, y, colour, bold) {
  brush.font = bold ? `600 ${FONT}` : FONT;
  if (brush.measureText(text).width <= right - left) {
    brush.fillStyle = colour;
    brush.textBaseline = "middle";
    brush.fillText(text, left, y);
  }
  brush.font = FONT;
}

function drawDown(brush, { looks }, span, lane, left, right) {
  brush.fillStyle = looks.dark ? "rgba(0,0,0,.55)" : "rgba(60,60,70,.10)";
  brush.fillRect(left, lane.top + 1, right - left, lane.height - 2);
  hatch(brush, left, right, lane, looks.dark ? "rgba(255,107,107,.20)" : "rgba(209,36,47,.20)");
  inside(brush, "down", left + 6, right - 6, lane.middle, cssColour("--alarm"), false);
}

function drawFrozen(brush, { looks }, span, lane, left, right) {
  hatch(brush, left, right, lane, looks.dark ? "rgba(140,180,255,.28)" : "rgba(60,100,180,.22)");
  inside(brush, "frozen", left + 6, right - 6, lane.top + lane.height - 10, cssColour("--faint"), false);
}

function hatch(brush, left, right, lane, colour) {
  brush.save();
  brush.beginPath();
  brush.rect(left, lane.top + 1, right - left, lane.height - 2);
  brush.clip();
  brush.strokeStyle = colour;
  brush.lineWidth = 1;
  brush.beginPath();
  const step = 7, start = Math.floor(left / step) * step - lane.height;
  for (let x = start; x < right; x += step) {
    brush.moveTo(x, lane.top + lane.height);
    brush.lineTo(x + lane.height, lane.top);
  }
  brush.stroke();
  brush.restore();
}

function drawFault(brush, scene, span, lane, left, right, row) {
  const colour = colourOf(scene.looks, EVENT_CLASSES.find((each) => each.id === "fault"));
  const y = lane.top + 4 + (row % FAULT_ROWS_MAX) * FAULT_ROW;
  brush.globalAlpha = 0.25;
  brush.fillStyle = colour;
  brush.fillRect(left, y, right - left, 10);
  brush.globalAlpha = 0.85;
  brush.fillRect(left, y, 2, 10);
  brush.globalAlpha = 1;
  inside(brush, span.text, left + 5, right - 2, y + 5.5, colour, false);
  shadeTarget(brush, scene, span, left, right, colour);
}

// The band of a fault lies on the lane of its target too.
function shadeTarget(brush, { view, story }, span, left, right, colour) {
  const target = story.events.details[span.event].node;
  const lane = view.lanes[story.lanes.indexOf(`n${target}`)];
  if (!lane) return;
  brush.globalAlpha = 0.06;
  brush.fillStyle = colour;
  brush.fillRect(left, lane.top + 1, right - left, lane.height - 2);
  brush.globalAlpha = 0.7;
  brush.fillRect(left, lane.top + 1, right - left, 2);
  brush.globalAlpha = 1;
}

function drawWrite(brush, { looks }, span, lane, left, right) {
  brush.fillStyle = colourOf(looks, EVENT_CLASSES.find((each) => each.id === "disk"));
  brush.globalAlpha = 0.45;
  brush.fillRect(left, lane.middle - 3, Math.max(1, right - left), 6);
  brush.globalAlpha = 1;
}

function drawHold(brush, { looks }, span, lane, left, right, row) {
  const colour = span.text.startsWith("lock") ? (looks.dark ? "#d2a8ff" : "#8250df") : (looks.dark ? "#58a6ff" : "#0969da");
  const y = lane.middle + 4 + (row % 3) * 5;
  brush.fillStyle = colour;
  brush.globalAlpha = 0.8;
  brush.fillRect(left, y, right - left, 3.6);
  brush.globalAlpha = 1;
}

// ---------------------------------------------------------------- messages

function drawArrows(brush, scene) {
  const { story, view } = scene;
  const visible = arrowsInView(scene);
  const [first, last] = eventsInView(view);
  const crowd = visible.length;
  scene.inView = { events: last - first, arrows: crowd };
  const alpha = crowd > VERY_DENSE ? 0.3 : crowd > DENSE ? 0.5 : 0.85;
  for (const pass of [0, 1]) {
    for (const arrow of visible) {
      const lit = isLit(scene, arrow.sent) && (arrow.arrival < 0 || isLit(scene, arrow.arrival));
      if (Number(lit) === pass) drawArrow(brush, scene, arrow, lit ? alpha : scene.focus ? 0.10 : alpha * 0.4, crowd, story);
    }
  }
  brush.globalAlpha = 1;
}

function isLit(scene, event) {
  return !scene.focus || scene.focus.past[event] || scene.focus.future[event];
}

function arrowsInView(scene) {
  const { view, story, looks } = scene;
  return story.arrows.filter((arrow) => {
    if (!view.lanes[arrow.from] || !view.lanes[arrow.to]) return false;
    if (looks.hiddenMessages.has(looks.messageClass[arrow.message])) return false;
    const start = placeOfEvent(view, arrow.sent);
    const end = arrow.arrival < 0 ? start : placeOfEvent(view, arrow.arrival);
    return end >= view.from && start <= view.to;
  });
}

// Where an arrow begins and ends on the canvas; a stub ends a third of the way.
function lineOf(view, arrow) {
  const from = view.lanes[arrow.from], to = view.lanes[arrow.to];
  const x1 = xOfEvent(view, arrow.sent), down = Math.sign(to.middle - from.middle) || 1;
  const y1 = from.middle + (from.kind === "member" ? 3 * down : 0), y2 = to.middle - (to.kind === "member" ? 3 * down : 0);
  if (arrow.arrival >= 0) return { x1, y1, x2: xOfEvent(view, arrow.arrival), y2 };
  return { x1, y1, x2: x1 + 12, y2: y1 + Math.sign(y2 - y1) * Math.min(26, Math.abs(y2 - y1) * 0.4) };
}

function drawArrow(brush, scene, arrow, alpha, crowd) {
  const { view, looks } = scene;
  const sort = MESSAGE_CLASSES[looks.messageClass[arrow.message]] || MESSAGE_CLASSES[MESSAGE_CLASSES.length - 1];
  const { x1, y1, x2, y2 } = lineOf(view, arrow);
  const strong = scene.selected === arrow.sent || (arrow.arrival >= 0 && scene.selected === arrow.arrival) || scene.hovered === arrow;
  brush.globalAlpha = strong ? 1 : alpha;
  brush.strokeStyle = brush.fillStyle = colourOf(looks, sort);
  brush.lineWidth = (strong ? 1.8 : 1) * (crowd > DENSE ? 0.7 : 1) * sort.width;
  if (scene.focus && scene.focus.future[arrow.sent]) brush.setLineDash([5, 3]);
  brush.beginPath();
  brush.moveTo(x1, y1);
  brush.lineTo(x2, y2);
  brush.stroke();
  brush.setLineDash([]);
  if (arrow.arrival < 0) drawCross(brush, x2, y2, 3.5, cssColourCached(scene, "--alarm"));
  else if (crowd <= VERY_DENSE || strong) drawHead(brush, x1, y1, x2, y2, crowd > DENSE ? 3.5 : 5.5);
}

function cssColourCached(scene, name) {
  return scene.colours[name] || (scene.colours[name] = cssColour(name));
}

function drawHead(brush, x1, y1, x2, y2, size) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  brush.beginPath();
  brush.moveTo(x2, y2);
  brush.lineTo(x2 - size * Math.cos(angle - 0.38), y2 - size * Math.sin(angle - 0.38));
  brush.lineTo(x2 - size * Math.cos(angle + 0.38), y2 - size * Math.sin(angle + 0.38));
  brush.fill();
}

function drawCross(brush, x, y, size, colour) {
  brush.strokeStyle = colour;
  brush.lineWidth = 1.5;
  brush.beginPath();
  brush.moveTo(x - size, y - size);
  brush.lineTo(x + size, y + size);
  brush.moveTo(x + size, y - size);
  brush.lineTo(x - size, y + size);
  brush.stroke();
}

// ---------------------------------------------------------------- events

const OFFSETS = { commit: -13, apply: -13, role: -24, timer: 12, hold: 3, config: -24, log: 0, operation: 14 };

function yOfEvent(view, looks, story, event) {
  const lane = view.lanes[story.events.lane[event]];
  if (!lane) return NaN;
  const sort = EVENT_CLASSES[looks.eventClass[story.events.kind[event]]];
  const offset = lane.kind === "member" || (lane.kind === "client" && sort.id !== "operation") ? OFFSETS[sort.id] || 0 : 0;
  return lane.middle + (lane.kind === "client" ? offset / 3 : offset);
}

function drawEvents(brush, scene) {
  const { view, story, looks } = scene;
  const [first, last] = eventsInView(view);
  const crowd = last - first;
  for (let event = first; event < last; event++) {
    const place = looks.eventClass[story.events.kind[event]];
    if (looks.hiddenEvents.has(place)) continue;
    const sort = EVENT_CLASSES[place];
    if (crowd > VERY_DENSE && (sort.id === "message" || sort.id === "timer")) continue; // their arrows are there
    const y = yOfEvent(view, looks, story, event);
    if (Number.isNaN(y)) continue;
    brush.globalAlpha = isLit(scene, event) ? 1 : 0.12;
    drawShape(brush, sort, xOfEvent(view, event), y, colourOf(looks, sort), story, event, crowd > DENSE ? 0.75 : 1);
  }
  brush.globalAlpha = 1;
}

function drawShape(brush, sort, x, y, colour, story, event, scale) {
  brush.fillStyle = brush.strokeStyle = colour;
  brush.lineWidth = 1.3;
  const kind = event < 0 ? sort.kinds[0] : story.kinds[story.events.kind[event]];
  if (kind === "start" || kind === "resume") { polygon(brush, x, y, 5, [[-0.6, -1], [1, 0], [-0.6, 1]]); return; }
  if (kind === "pause") { brush.fillRect(x - 3.5, y - 5, 2.5, 10); brush.fillRect(x + 1, y - 5, 2.5, 10); return; }
  if (kind === "persist" || kind === "let go") return; // where the bar begins, or ends
  SHAPES[sort.shape](brush, x, y, colour, scale);
}

const SHAPES = {
  dot: (brush, x, y, _, scale) => { circle(brush, x, y, 3.2 * scale); brush.fill(); },
  ring: (brush, x, y, _, scale) => { circle(brush, x, y, 2.4 * scale); brush.stroke(); },
  point: (brush, x, y, _, scale) => { circle(brush, x, y, 1.5 * scale); brush.fill(); },
  tick: (brush, x, y) => { brush.fillRect(x - 0.7, y - 6, 1.4, 12); },
  cross: (brush, x, y, colour) => { drawCross(brush, x, y, 5, colour); },
  diamond: (brush, x, y) => { polygon(brush, x, y, 4.6, [[0, -1], [1, 0], [0, 1], [-1, 0]]); },
  square: (brush, x, y) => { brush.fillRect(x - 3.2, y - 3.2, 6.4, 6.4); },
  triangle: (brush, x, y) => { polygon(brush, x, y, 4.2, [[-1, 1], [1, 1], [0, -1]]); },
  bar: () => {},
  burst: (brush, x, y) => {
    polygon(brush, x, y, 11, [[0, -1], [0.3, -0.35], [1, -0.3], [0.45, 0.15], [0.65, 0.9], [0, 0.45], [-0.65, 0.9], [-0.45, 0.15], [-1, -0.3], [-0.3, -0.35]]);
  },
};

function circle(brush, x, y, radius) {
  brush.beginPath();
  brush.arc(x, y, radius, 0, 2 * Math.PI);
}

function polygon(brush, x, y, size, points) {
  brush.beginPath();
  points.forEach(([dx, dy], place) => brush[place ? "lineTo" : "moveTo"](x + size * dx, y + size * dy));
  brush.closePath();
  brush.fill();
}

// ---------------------------------------------------------------- what is pointed at

function drawMarks(brush, scene) {
  const { story } = scene;
  drawPhases(brush, scene);
  if (story.violation >= 0) drawViolation(brush, scene);
  if (scene.matches.length) for (const event of scene.matches) ringAt(brush, scene, event, cssColour("--accent"), 6);
  if (scene.selected >= 0) ringAt(brush, scene, scene.selected, cssColour("--accent"), 9);
  if (scene.hoveredEvent >= 0) ringAt(brush, scene, scene.hoveredEvent, cssColour("--ink"), 7);
  brush.globalAlpha = 1;
  brush.lineWidth = 1;
}

// What concerns everybody goes across all lanes.
function drawPhases(brush, { view, story }) {
  const phase = story.kindOf["phase"];
  brush.strokeStyle = brush.fillStyle = cssColour("--faint");
  brush.lineWidth = 1;
  for (let event = 0; event < story.count; event++) {
    if (story.events.kind[event] !== phase) continue;
    const x = Math.round(xOfEvent(view, event)) + 0.5;
    brush.setLineDash([2, 3]);
    brush.beginPath();
    brush.moveTo(x, 0);
    brush.lineTo(x, view.height);
    brush.stroke();
    brush.setLineDash([]);
    brush.textBaseline = "middle";
    const room = brush.measureText(story.events.text[event]).width + 10;
    brush.fillText(story.events.text[event], x + room < view.width ? x + 5 : x + 5 - room, 11);
  }
}

function ringAt(brush, { view, looks, story }, event, colour, radius) {
  const x = xOfEvent(view, event), y = yOfEvent(view, looks, story, event);
  if (Number.isNaN(y) || x < GUTTER - 10 || x > view.width + 10) return;
  brush.strokeStyle = colour;
  brush.lineWidth = 2;
  circle(brush, x, y, radius);
  brush.stroke();
}

function drawViolation(brush, { view, story, looks }) {
  const x = xOfEvent(view, story.violation);
  if (x < GUTTER || x > view.width) return;
  brush.strokeStyle = brush.fillStyle = cssColour("--alarm");
  brush.lineWidth = 1.5;
  brush.setLineDash([6, 4]);
  brush.beginPath();
  brush.moveTo(x, 0);
  brush.lineTo(x, view.height);
  brush.stroke();
  brush.setLineDash([]);
  const y = yOfEvent(view, looks, story, story.violation);
  if (!Number.isNaN(y)) SHAPES.burst(brush, x, y);
}

// ---------------------------------------------------------------- axis and overview

function drawAxis(brush, { view }) {
  const step = niceStep((view.to - view.from) / Math.max(1, (view.width - GUTTER) / 110));
  brush.fillStyle = cssColour("--faint");
  brush.strokeStyle = cssColour("--line");
  brush.textBaseline = "middle";
  for (let place = Math.ceil(view.from / step) * step; place <= view.to; place += step) {
    const x = xOf(view, place);
    if (x < GUTTER || place < 0 || place > extentOf(view)) continue;
    brush.beginPath();
    brush.moveTo(Math.round(x) + 0.5, 22);
    brush.lineTo(Math.round(x) + 0.5, 30);
    brush.stroke();
    brush.fillText(tickText(view, place, step), x + 4, 14);
  }
  brush.fillText(view.ordered ? "event" : "time", 12, 14);
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const share = rough / power;
  return Math.max(1, (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10) * power);
}

function tickText(view, place, step) {
  if (view.ordered) return `#${Math.round(place) + 1}`;
  if (step >= 1e8) return `${(place / 1e9).toFixed(step >= 1e9 ? 0 : 1)} s`;
  if (step >= 1e6) return `${(place / 1e6).toFixed(0)} ms`;
  return `${(place / 1e6).toFixed(step >= 1e5 ? 1 : step >= 1e4 ? 2 : step >= 1e3 ? 3 : 6)} ms`;
}

function drawOverview(brush, scene, width, height) {
  const { view, story, looks } = scene;
  const toX = (place) => GUTTER + place / extentOf(view) * (width - GUTTER - RIGHT);
  for (const span of story.spans) {
    if (span.kind !== "life" || span.text !== "leader") continue;
    brush.fillStyle = termFill(looks, span.term, "leader");
    const left = toX(view.ordered ? span.event : span.from), right = toX(placeOfTime(view, span.to));
    brush.fillRect(left, 0, Math.max(1, right - left), height);
  }
  drawDensity(brush, scene, width, height);
  brush.fillStyle = colourOf(looks, EVENT_CLASSES.find((each) => each.id === "fault"));
  for (const span of story.spans) {
    if (span.kind !== "fault") continue;
    const left = toX(view.ordered ? span.event : span.from);
    brush.fillRect(left, 2, Math.max(2, toX(placeOfTime(view, span.to)) - left), 3);
  }
  if (story.violation >= 0) {
    brush.fillStyle = cssColour("--alarm");
    brush.fillRect(toX(placeOfEvent(view, story.violation)) - 1, 0, 2.5, height);
  }
  drawWindow(brush, scene, toX, width, height);
}

function drawDensity(brush, { view, story }, width, height) {
  const columns = Math.max(1, Math.floor((width - GUTTER - RIGHT) / 3));
  const counts = new Uint32Array(columns);
  for (let event = 0; event < story.count; event++) {
    counts[Math.min(columns - 1, Math.floor(placeOfEvent(view, event) / extentOf(view) * columns))]++;
  }
  const most = Math.max(...counts, 1);
  brush.fillStyle = cssColour("--faint");
  brush.globalAlpha = 0.55;
  counts.forEach((count, column) => {
    const tall = Math.sqrt(count / most) * (height - 10);
    if (count) brush.fillRect(GUTTER + column * 3, height - 2 - tall, 2, tall);
  });
  brush.globalAlpha = 1;
}

function drawWindow(brush, { view }, toX, width, height) {
  const left = Math.max(GUTTER, toX(view.from)), right = Math.min(width - RIGHT, toX(view.to));
  brush.fillStyle = cssColour("--accent");
  brush.globalAlpha = 0.14;
  brush.fillRect(left, 0, Math.max(2, right - left), height);
  brush.globalAlpha = 1;
  brush.strokeStyle = cssColour("--accent");
  brush.lineWidth = 1.5;
  brush.strokeRect(left, 1, Math.max(2, right - left), height - 2);
}
