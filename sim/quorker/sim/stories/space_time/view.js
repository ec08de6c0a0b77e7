"use strict";
// What part of the story is in view, and where on the canvas it lies: positions along the way, lanes across it.

const GUTTER = 92;
const RIGHT = 14;
const LANE_HEIGHTS = { nemesis: 28, client: 40, member: 84, disk: 24, other: 24 };
const CLIENT_CROWDED = 28;
const FAULT_ROW = 12;
const FAULT_ROWS_MAX = 8;

// `ordered`: each event takes the same room; else each nanosecond does.
function makeView(story) {
  return { story, ordered: false, from: 0, to: 1, width: 800, height: 400, lanes: [], hiddenLanes: new Set() };
}

function extentOf(view) {
  return view.ordered ? view.story.count : view.story.endNs;
}

function fit(view) {
  const extent = extentOf(view);
  view.from = -extent * 0.015;
  view.to = extent * 1.015;
}

function placeOfEvent(view, event) {
  return view.ordered ? event : view.story.events.at[event];
}

function placeOfTime(view, ns) {
  return view.ordered ? firstAt(view.story.events.at, ns) : ns;
}

function firstAt(at, ns) {
  let low = 0, high = at.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at[middle] < ns) low = middle + 1; else high = middle;
  }
  return low;
}

function xOf(view, place) {
  return GUTTER + (place - view.from) / (view.to - view.from) * (view.width - GUTTER - RIGHT);
}

function placeAt(view, x) {
  return view.from + (x - GUTTER) / (view.width - GUTTER - RIGHT) * (view.to - view.from);
}

function xOfEvent(view, event) {
  return xOf(view, placeOfEvent(view, event));
}

// The events whose marks can be in view, as a half-open range of numbers.
function eventsInView(view) {
  if (view.ordered) {
    return [Math.max(0, Math.floor(view.from)), Math.min(view.story.count, Math.ceil(view.to) + 1)];
  }
  return [firstAt(view.story.events.at, view.from), firstAt(view.story.events.at, view.to + 1)];
}

function zoom(view, factor, x) {
  const anchor = placeAt(view, x);
  const smallest = view.ordered ? 4 : 2000;
  const span = Math.min(Math.max((view.to - view.from) * factor, smallest), extentOf(view) * 1.2);
  const share = (anchor - view.from) / (view.to - view.from);
  view.from = anchor - share * span;
  view.to = view.from + span;
  keepInside(view);
}

function pan(view, pixels) {
  const places = pixels / (view.width - GUTTER - RIGHT) * (view.to - view.from);
  view.from += places;
  view.to += places;
  keepInside(view);
}

function keepInside(view) {
  const extent = extentOf(view), span = view.to - view.from, margin = Math.max(span * 0.5, extent * 0.015);
  const from = Math.min(Math.max(view.from, -margin), extent + margin - span);
  view.from = span > extent + 2 * margin ? (extent - span) / 2 : from;
  view.to = view.from + span;
}

function centreOn(view, event, span) {
  const place = placeOfEvent(view, event);
  const width = span || Math.min(view.to - view.from, extentOf(view));
  view.from = place - width / 2;
  view.to = place + width / 2;
  keepInside(view);
}

// The same stretch of the story on the other scale.
function toggleScale(view) {
  const at = view.story.events.at;
  const [first, last] = eventsInView(view);
  const whole = last - first >= view.story.count;
  view.ordered = !view.ordered;
  if (whole) { fit(view); return; }
  view.from = view.ordered ? first - 0.5 : at[Math.max(0, first)];
  view.to = view.ordered ? Math.max(last, first + 4) : Math.max(at[Math.max(0, last - 1)], view.from + 2000);
  keepInside(view);
}

function laneKind(lane) {
  if (lane === "nemesis") return "nemesis";
  if (/^n\d+$/.test(lane)) return "member";
  if (/^d\d+$/.test(lane)) return "disk";
  return /^c\d+$/.test(lane) ? "client" : "other";
}

// Tops and heights of the lanes that are shown; spare room goes to the members.
function layLanes(view, room) {
  const shown = view.story.lanes.map((name, place) => ({ name, place, kind: laneKind(name) }))
    .filter((lane) => !view.hiddenLanes.has(lane.place));
  const crowded = shown.filter((lane) => lane.kind === "client").length > 4;
  const heights = { ...LANE_HEIGHTS, nemesis: 8 + FAULT_ROW * Math.min(FAULT_ROWS_MAX, Math.max(2, view.story.faultRows)) };
  if (crowded) heights.client = CLIENT_CROWDED;
  const least = shown.reduce((sum, lane) => sum + heights[lane.kind], 14);
  const members = shown.filter((lane) => lane.kind === "member").length;
  const spare = members ? Math.min(90, Math.max(0, room - least) / members) : 0;
  let top = 6;
  view.lanes = new Array(view.story.lanes.length).fill(null);
  for (const lane of shown) {
    lane.top = top;
    lane.height = heights[lane.kind] + (lane.kind === "member" ? spare : 0);
    lane.middle = lane.kind === "client" ? top + lane.height * 0.42 : top + lane.height / 2;
    view.lanes[lane.place] = lane;
    top += lane.height;
  }
  view.height = Math.max(top + 8, room);
}
