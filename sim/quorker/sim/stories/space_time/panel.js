"use strict";
// The side: what was clicked with its causes and effects, the legend that is also the filter, and the hint under the pointer.

const STEPS_SHOWN = 60;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  Object.assign(made, attributes);
  made.append(...children);
  return made;
}

function describe(scene, event) {
  const { events, lanes, kinds } = scene.story;
  return {
    number: event + 1, text: `${lanes[events.lane[event]]} ${events.text[event]}`, kind: kinds[events.kind[event]],
    where: `#${event + 1} · ${timeText(events.at[event])} · ${kinds[events.kind[event]]}`,
  };
}

function showDetails(scene, act) {
  const panel = document.getElementById("details");
  panel.replaceChildren();
  if (scene.selected < 0) {
    const { story } = scene;
    panel.append(
      element("h2", {}, "Story"),
      element("div", { className: "note" }, `${story.count.toLocaleString("en")} events, ${story.arrows.length.toLocaleString("en")} messages, ${timeText(story.endNs)}. Click an event or a message for its causes and effects.`));
    if (story.violation >= 0) panel.append(element("h2", {}, "Violation"), stepsOf(scene, [story.violation], act));
    return;
  }
  const event = scene.selected, said = describe(scene, event), details = scene.story.events.details[event];
  panel.append(element("div", { className: "what" }, said.text), element("div", { className: "where" }, said.where));
  const pairs = element("dl", { className: "pairs" });
  for (const [name, value] of Object.entries(details)) pairs.append(element("dt", {}, name), element("dd", {}, String(value)));
  if (scene.story.events.lost[event]) pairs.append(element("dt", {}, "lost"), element("dd", {}, scene.story.events.lost[event]));
  panel.append(pairs);
  panel.append(element("div", { className: "note" }, `causal past ${(sizeOf(scene.focus.past) - 1).toLocaleString("en")} · future ${(sizeOf(scene.focus.future) - 1).toLocaleString("en")} of ${scene.story.count.toLocaleString("en")} events`));
  addSteps(panel, scene, "Causes", scene.story.events.causes[event].map((cause) => cause - 1), act);
  addSteps(panel, scene, "Effects", scene.story.effects[event], act);
}

function addSteps(panel, scene, title, events, act) {
  if (!events.length) return;
  panel.append(element("h2", {}, `${title} (${events.length})`), stepsOf(scene, events.slice(0, STEPS_SHOWN), act));
  if (events.length > STEPS_SHOWN) panel.append(element("div", { className: "note" }, `… and ${events.length - STEPS_SHOWN} more, highlighted in the picture`));
}

function stepsOf(scene, events, act) {
  const list = element("ul", { className: "steps" });
  for (const event of events) {
    const { text } = describe(scene, event);
    const row = element("li", {}, element("b", {}, `#${event + 1} `), text);
    row.addEventListener("click", () => act.select(event, true));
    list.append(row);
  }
  return list;
}

// ---------------------------------------------------------------- legend and filter

function showLegend(scene, act) {
  const panel = document.getElementById("legend");
  const { story, looks, view } = scene;
  const messages = countBy(story.arrows, (arrow) => looks.messageClass[arrow.message]);
  const events = countBy(story.events.kind, (kind) => looks.eventClass[kind]);
  panel.replaceChildren();
  addRows(panel, scene, "Messages", MESSAGE_CLASSES, messages, looks.hiddenMessages, paintMessage, act);
  addRows(panel, scene, "Events", EVENT_CLASSES, events, looks.hiddenEvents, paintEvent, act);
  const lanes = element("div", { className: "lanes" });
  story.lanes.forEach((name, place) => lanes.append(toggleRow(view.hiddenLanes, place, act, name)));
  panel.append(heading("Lanes", view.hiddenLanes, story.lanes.map((_, place) => place), act), lanes);
  panel.append(element("h2", {}, "Backgrounds"), element("div", { className: "note" },
    "colour of a member: its term; stronger while it leads; thick line: leader, dashed: candidate. Hatched red: down, hatched blue: frozen. Orange band: fault on that member. Bars on clients: what they believe to hold (blue a job, violet a lock). Bars on disks: a write until it is durable. After a click only its causal past (solid) and future (dashed) stay lit."));
}

function countBy(items, classOf) {
  const counts = {};
  for (const item of items) counts[classOf(item)] = (counts[classOf(item)] || 0) + 1;
  return counts;
}

function heading(title, hidden, all, act) {
  const link = element("a", {}, hidden.size ? "show all" : "hide all");
  link.addEventListener("click", () => {
    if (hidden.size) hidden.clear(); else all.forEach((place) => hidden.add(place));
    act.filtered();
  });
  return element("h2", {}, title, link);
}

function addRows(panel, scene, title, classes, counts, hidden, paint, act) {
  const present = classes.map((_, place) => place).filter((place) => counts[place]);
  panel.append(heading(title, hidden, present, act));
  for (const place of present) {
    const sample = element("canvas", {});
    const row = toggleRow(hidden, place, act, sample, classes[place].label, element("span", { className: "count" }, counts[place].toLocaleString("en")));
    panel.append(row);
    paint(prepare(sample, 34, 14), scene, classes[place]);
  }
}

function toggleRow(hidden, place, act, ...children) {
  const row = element("div", { className: hidden.has(place) ? "row off" : "row", title: "click to hide or show" }, ...children);
  row.addEventListener("click", () => {
    if (!hidden.delete(place)) hidden.add(place);
    act.filtered();
  });
  return row;
}

function paintMessage(brush, { looks }, sort) {
  brush.strokeStyle = brush.fillStyle = colourOf(looks, sort);
  brush.lineWidth = sort.width * 1.2;
  brush.beginPath();
  brush.moveTo(2, 11);
  brush.lineTo(31, 3);
  brush.stroke();
  drawHead(brush, 2, 11, 31, 3, 6);
}

function paintEvent(brush, { looks, story }, sort) {
  const colour = colourOf(looks, sort);
  if (sort.shape === "bar") { brush.fillStyle = colour; brush.fillRect(4, 5, 26, 4.5); return; }
  brush.save();
  if (sort.shape === "burst") { brush.translate(17, 7); brush.scale(0.65, 0.65); brush.translate(-17, -7); }
  drawShape(brush, { ...sort, kinds: sort.id === "disk" ? ["durable"] : sort.kinds }, 17, 7, colour, story, -1, 1);
  brush.restore();
}

// ---------------------------------------------------------------- hint

function showHint(scene, x, y) {
  const hint = document.getElementById("hint");
  const event = scene.hoveredEvent >= 0 ? scene.hoveredEvent : scene.hovered ? scene.hovered.sent : -1;
  hint.hidden = event < 0;
  if (event < 0) return;
  const said = describe(scene, event);
  hint.replaceChildren(element("div", { className: "what" }, said.text), element("div", { className: "where" }, said.where + travel(scene)));
  const box = hint.getBoundingClientRect();
  hint.style.left = `${Math.min(x + 14, window.innerWidth - box.width - 8)}px`;
  hint.style.top = `${y + 18 + box.height > window.innerHeight ? y - box.height - 10 : y + 18}px`;
}

function travel({ hovered, hoveredEvent, story }) {
  if (!hovered || hoveredEvent >= 0) return "";
  if (hovered.arrival < 0) return ` · ${story.events.lost[hovered.sent] || "never arrived"}`;
  return ` · under way for ${timeText(story.events.at[hovered.arrival] - story.events.at[hovered.sent])}`;
}
