"use strict";
// Colours and shapes: one class for each sort of message and of event, in both themes. Counted and filtered by class.

const MESSAGE_CLASSES = [
  { id: "append", label: "entries", of: ["AppendEntries"], light: "#2f6feb", dark: "#6ea8ff", width: 1.6 },
  { id: "commit", label: "empty append, heartbeat", of: ["AppendEntries (empty)", "Heartbeat"], light: "#9aa7b8", dark: "#5b6878", width: 1 },
  { id: "ack", label: "append answer", of: ["AppendResponse"], light: "#0f9b8e", dark: "#37c8b6", width: 1.1 },
  { id: "alive", label: "heartbeat answer", of: ["HeartbeatResponse"], light: "#c0c7ce", dark: "#424c57", width: 0.9 },
  { id: "vote", label: "vote asked and given", of: ["RequestVote", "VoteResponse", "TimeoutNow", "ForwardTransfer"], light: "#d9820a", dark: "#ffb454", width: 1.5 },
  { id: "snapshot", label: "snapshot", of: ["InstallSnapshot", "SnapshotBegin", "SnapshotEnd"], light: "#8250df", dark: "#c297ff", width: 2 },
  { id: "forward", label: "forwarded", of: ["Forwarded", "ForwardRefused", "ForwardProposal", "ForwardRead", "ReadResponse", "Propose", "ProposeRefused"], light: "#a0522d", dark: "#e0956b", width: 1.2 },
  { id: "request", label: "client asks", of: ["request", "attach"], light: "#1a7f37", dark: "#56d364", width: 1.3 },
  { id: "reply", label: "client is told", of: ["reply", "notice", "opened", "refused", "session lost", "route changed"], light: "#5c8a1e", dark: "#a6d651", width: 1.3 },
  { id: "other", label: "other messages", of: [], light: "#6e7781", dark: "#8b949e", width: 1.2 },
];

const EVENT_CLASSES = [
  { id: "role", label: "role, term", kinds: ["role", "term"], light: "#bf8700", dark: "#f2cc60", shape: "diamond" },
  { id: "commit", label: "commit", kinds: ["commit"], light: "#1a7f37", dark: "#3fb950", shape: "dot" },
  { id: "apply", label: "apply, read", kinds: ["apply", "read"], light: "#5c8a1e", dark: "#a6d651", shape: "ring" },
  { id: "disk", label: "write, fsync", kinds: ["persist", "durable"], light: "#57606a", dark: "#9aa5b1", shape: "tick" },
  { id: "failed", label: "failed fsync", kinds: ["disk failed"], light: "#d1242f", dark: "#ff6b6b", shape: "cross" },
  { id: "life", label: "crash, start, freeze", kinds: ["crash", "start", "pause", "resume"], light: "#d1242f", dark: "#ff6b6b", shape: "cross" },
  { id: "fault", label: "fault", kinds: ["fault", "fault end"], light: "#cf4a1f", dark: "#ff8e5e", shape: "bar" },
  { id: "hold", label: "job or lock held", kinds: ["hold", "let go"], light: "#0969da", dark: "#58a6ff", shape: "bar" },
  { id: "config", label: "members, snapshot", kinds: ["config", "snapshot"], light: "#8250df", dark: "#c297ff", shape: "square" },
  { id: "log", label: "decided in the log", kinds: ["decision"], light: "#116329", dark: "#7ee2a8", shape: "dot" },
  { id: "operation", label: "asked from outside", kinds: ["operation"], light: "#0550ae", dark: "#79c0ff", shape: "triangle" },
  { id: "timer", label: "timer", kinds: ["timer"], light: "#8c959f", dark: "#6e7681", shape: "tick" },
  { id: "message", label: "send, deliver", kinds: ["send", "deliver"], light: "#8c959f", dark: "#6e7681", shape: "point" },
  { id: "violation", label: "violation", kinds: ["violation"], light: "#d1242f", dark: "#ff5c5c", shape: "burst" },
  { id: "note", label: "note, phase", kinds: ["note", "phase"], light: "#8c959f", dark: "#8b949e", shape: "dot" },
];

const ROLE_WEIGHT = { leader: 5, candidate: 2.4, "pre-candidate": 2.4, follower: 1.3 };

function makeLooks(story) {
  const messageClass = story.messages.map((name) => Math.max(0, MESSAGE_CLASSES.findIndex((each) => each.of.includes(name))));
  story.messages.forEach((name, place) => {
    if (!MESSAGE_CLASSES.some((each) => each.of.includes(name))) messageClass[place] = MESSAGE_CLASSES.length - 1;
  });
  const eventClass = story.kinds.map((kind) => EVENT_CLASSES.findIndex((each) => each.kinds.includes(kind)));
  return { messageClass, eventClass, hiddenMessages: new Set(), hiddenEvents: new Set(), dark: false };
}

function colourOf(looks, what) {
  return looks.dark ? what.dark : what.light;
}

// Neighbouring terms get distant hues, always the same ones.
function termHue(term) {
  return (term * 137.508 + 200) % 360;
}

function termFill(looks, term, role) {
  const strength = role === "leader" ? 0.22 : role === "follower" ? 0.09 : 0.13;
  return `hsla(${termHue(term)}, 70%, ${looks.dark ? 58 : 52}%, ${looks.dark ? strength * 0.9 : strength})`;
}

function termLine(looks, term, role) {
  const light = looks.dark ? (role === "follower" ? 46 : 62) : (role === "follower" ? 62 : 42);
  return `hsl(${termHue(term)}, ${role === "follower" ? 30 : 68}%, ${light}%)`;
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
