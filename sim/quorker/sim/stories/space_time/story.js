"use strict";
// The story as the page was given it, and what follows from it: messages, effects, causal cones. Nothing is drawn here.

function readStory(content) {
  const events = content.events;
  const story = {
    lanes: content.lanes, kinds: content.kinds, messages: content.messages, events: events,
    count: events.at.length, kindOf: {}, spans: content.spans.map(spanOf),
  };
  content.kinds.forEach((kind, place) => { story.kindOf[kind] = place; });
  story.faultRows = mostAtOnce(story.spans.filter((span) => span.kind === "fault"));
  story.effects = effectsOf(events);
  story.after = followersOf(events.before);
  story.arrows = arrowsOf(story);
  story.violation = events.kind.lastIndexOf(story.kindOf["violation"]);
  story.endNs = Math.max(1, story.count ? events.at[story.count - 1] : 1);
  return story;
}

function spanOf([kind, lane, from, to, number, text, term]) {
  return { kind, lane, from, to, event: number - 1, text, term };
}

// Events are numbered from 1 in the story, and from 0 here.
function effectsOf(events) {
  const effects = Array.from(events.at, () => []);
  events.causes.forEach((causes, event) => causes.forEach((cause) => effects[cause - 1].push(event)));
  return effects;
}

function followersOf(before) {
  const after = new Int32Array(before.length).fill(-1);
  before.forEach((number, event) => { if (number) after[number - 1] = event; });
  return after;
}

// How many spans overlap at most.
function mostAtOnce(spans) {
  const turns = spans.flatMap((span) => [[span.from, 1], [span.to, -1]]).sort(([one, up], [other, down]) => one - other || up - down);
  let now = 0, most = 0;
  for (const [, step] of turns) { now += step; most = Math.max(most, now); }
  return most;
}

// One arrow for each arrival; a message that never arrived is a stub.
function arrowsOf(story) {
  const { events, kindOf } = story;
  const arrows = [];
  const arrived = new Uint8Array(story.count);
  for (let event = 0; event < story.count; event++) {
    if (events.kind[event] !== kindOf["deliver"] || !events.sent[event]) continue;
    const sent = events.sent[event] - 1;
    arrived[sent] = 1;
    arrows.push({ sent, arrival: event, message: events.message[event], from: events.lane[sent], to: events.lane[event] });
  }
  for (let event = 0; event < story.count; event++) {
    if (events.kind[event] !== kindOf["send"] || arrived[event]) continue;
    arrows.push({ sent: event, arrival: -1, message: events.message[event], from: events.lane[event], to: events.to[event] });
  }
  arrows.sort((one, other) => one.sent - other.sent);
  return arrows;
}

// Everything that happened before (or, forward, because of) an event: causes, and the order of each process.
function coneOf(story, event, forward) {
  const cone = new Uint8Array(story.count);
  const waiting = [event];
  cone[event] = 1;
  const visit = (next) => { if (next >= 0 && !cone[next]) { cone[next] = 1; waiting.push(next); } };
  while (waiting.length) {
    const here = waiting.pop();
    if (forward) {
      story.effects[here].forEach(visit);
      visit(story.after[here]);
    } else {
      story.events.causes[here].forEach((cause) => visit(cause - 1));
      visit(story.events.before[here] - 1);
    }
  }
  return cone;
}

function sizeOf(cone) {
  let size = 0;
  for (const each of cone) size += each;
  return size;
}

function timeText(ns) {
  if (ns >= 1e9) return `${(ns / 1e9).toFixed(6)} s`;
  return `${(ns / 1e6).toFixed(6)} ms`;
}
