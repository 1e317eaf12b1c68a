// Shows what was lost. All that comes from the data is put in as text, never as HTML.

let language = navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
/** The page that is shown, and what is shown: all transactions, or those that a search has found. */
const view = { page: 0, filter: new Filter("", [], ""), result: null, part: 1, search: 0 };

/** Operations by their numbers in the data. */
const OPS = ["insert", "update", "delete"];
/** Columns of a table whose rows are shown as a grid. */
const SIDE_BY_SIDE = 8;

function say(word, ...values) {
  const text = WORDS[language][word] ?? word;
  return text.replace(/\{(\d)\}/g, (_, place) => {
    const value = values[place];
    return typeof value === "number" ? value.toLocaleString(language) : String(value ?? "");
  });
}

/** An element with a class and a text or children. */
function element(name, kind, ...content) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...content.filter(part => part !== null && part !== undefined));
  return made;
}

function replace(id, ...children) {
  $(id).replaceChildren(...children);
}

function showPart(id, isShown) {
  $(id).hidden = !isShown;
}

// The head of the page.

function tableName(table) {
  return Data.tail.databases > 1 ? `${table.database}: ${table.name}` : table.name;
}

function showFacts() {
  const { head, tail } = Data;
  const count = tail.transactions ?? Data.total;
  const verdict = count === 0 ? "verdictNone" : count === 1 ? "verdictOne" : "verdict";
  $("verdict").textContent = say(tail.filtered ? "verdictFiltered" : verdict, count);
  const warnings = [];
  if (!tail.complete) warnings.push(say("partial"));
  if (tail.omitted_rows || tail.omitted_transactions) {
    warnings.push(say("omitted", tail.omitted_rows, tail.omitted_transactions));
  }
  if (tail.omitted_keys) warnings.push(say("omittedKeys", tail.omitted_keys));
  $("partial").textContent = warnings.join(" ");
  showPart("partial", warnings.length > 0);
  const texts = {
    "svg-timeline": say("timeline", String(head.fork?.timeline ?? "")),
    "svg-from": tail.read ? say("read", tail.read.from) : "", "svg-fork": say("fork"), "svg-fork-lsn": head.fork?.lsn ?? "",
    "svg-lost": say(count === 1 ? "lostOne" : "lost", count), "svg-end": tail.read?.to ?? "", "svg-kept": say("kept"),
  };
  for (const [id, text] of Object.entries(texts)) $(id).textContent = text;
  const facts = [
    ["cluster", head.cluster?.directory], ["system", head.cluster?.system_identifier], ["version", head.cluster?.version],
    ["forkAt", head.fork && say("forkText", head.fork.lsn, String(head.fork.timeline))],
    ["wal", tail.read && say("walText", tail.read.from, tail.read.to)],
    ["time", tail.first_commit && `${time(tail.first_commit)} … ${time(tail.last_commit)}`],
    ["rows", tail.rows && say("rowsText", ...tail.rows)],
    ["largeObjects", tail.large_objects || null], ["withoutChanges", tail.without_changes || null],
  ];
  const shown = facts.filter(([, value]) => value !== null && value !== undefined);
  replace("facts", ...shown.flatMap(([word, value]) => [element("dt", "", say(word)), element("dd", "", String(value))]));
}

function showLists() {
  const { tail } = Data;
  const items = texts => texts.map(text => element("li", "", text));
  replace("notes", ...items(tail.notes ?? []));
  showPart("unsure", tail.notes?.length > 0);
  const undecided = tail.undecided ?? [];
  replace("undecided", ...items(undecided.map(one => `${one.gid} (${say(one.is_on_source ? "onSource" : "onTarget")})`)));
  showPart("undecided-part", undecided.length > 0);
  const objects = (tail.objects ?? []).map(object => changeText({ ...object, name: tableName(object) }));
  const sequences = (tail.sequences ?? []).map(one => say("sequence", tableName(one), one.last_value));
  replace("objects", ...items([...objects, ...sequences]));
  showPart("objects-part", objects.length + sequences.length > 0);
  const asked = (tail.tables ?? []).some(table => table.source);
  showPart("on-new", asked);
  const rows = (tail.tables ?? []).map(table => {
    const numbers = table.rows.map(count => element("td", "number", count.toLocaleString(language)));
    const source = asked ? element("td", "", sourceText(table.source)) : null;
    const row = element("tr", "", element("td", "", table.database), element("td", "", table.name), ...numbers, source);
    row.dataset.name = JSON.stringify([table.database, table.name]);
    row.tabIndex = 0;
    return row;
  });
  $("tables").tBodies[0].replaceChildren(...rows);
  showPart("tables-part", rows.length > 0);
  const names = new Map();
  Data.tables.forEach(table => names.set(JSON.stringify([table.database, table.name]), table));
  const options = [...names].map(([key, table]) => Object.assign(element("option", "", tableName(table)), { value: key }));
  const chosen = $("by-table").value;
  replace("by-table", Object.assign(element("option", "", say("everyTable")), { value: "" }), ...options);
  $("by-table").value = chosen;
  markChosen();
}

function markChosen() {
  for (const row of $("tables").tBodies[0].rows) row.classList.toggle("chosen", row.dataset.name === $("by-table").value);
}

// Transactions and their rows.

/** A change of an object or sequence on one line. */
function changeText(change) {
  if (change.op === "sequence") return say("sequence", change.name, change.last_value);
  const name = change.old_name ? say("was", change.name, change.old_name) : change.name;
  return `${say(change.op)}: ${WORDS[language].kinds[change.kind] ?? change.kind} ${name}`;
}

function value(shown) {
  if (shown === null) return element("i", "none", "NULL");
  if (typeof shown === "string") return document.createTextNode(shown);
  const [kind, text, more] = shown;
  switch (kind) {
    case "u": return element("i", "none", say("unchanged"));
    case "b": return element("span", "", text, " ", element("i", "none", more));
    case "s": return element("span", "", text, element("i", "none", say("shortened", more)));
    default: return element("i", "none", say("unknown"));
  }
}

/** What was done, how it is known, and what the new primary has in its place. */
function leadParts(change) {
  const [, op, , quality] = change;
  const states = Data.states(change).map(state => element("span", `state ${state}`, say(`state_${state}`)));
  return [say(OPS[op]), quality > 0 ? element("i", "none", ` ${say(["", "from_disk", "incomplete"][quality])}`) : null, ...states];
}

/** What the new primary has for the keys of a table, in numbers. */
function sourceText(source) {
  const states = ["same", "equal", "changed", "gone", "unknown"].filter(state => source?.[state] > 0);
  return states.map(state => say(`count_${state}`, source[state])).join(", ");
}

/** The values of each column: one, or the old and the new one. */
function cellParts([, op, , , before, after], columns) {
  return columns.map((_, place) => {
    const [old, made] = [before?.[place], after?.[place]];
    if (before && after && made !== 0) return [element("del", "", value(old)), " ", element("ins", "", value(made))];
    if (!before && !after) return [];
    return [value((op === 0 ? made : old) ?? (before ? old : made))];
  });
}

/** A row of a table with few columns. */
function rowElement(change, { columns }) {
  const cells = cellParts(change, columns).map(parts => element("td", "", ...parts));
  return element("tr", OPS[change[1]], element("td", "lead", ...leadParts(change)), element("td", "lead dim", change[2]), ...cells);
}

/** A row of a table with many columns, which would not fit side by side. */
function recordElement(change, { columns, key }) {
  const cells = cellParts(change, columns).map((parts, place) =>
    element("span", "cell", element("b", key.includes(place) ? "key" : "", columns[place]), " ", ...parts));
  const lead = element("span", "cell", ...leadParts(change), " ", element("span", "dim", change[2]));
  return element("div", `record ${OPS[change[1]]}`, lead, ...cells);
}

/** Puts changes into a transaction's body; rows of one table that follow each other are together. */
function addChange(body, change) {
  if (!Array.isArray(change)) {
    body.append(element("p", "", changeText(change), " ", element("span", "dim", change.lsn)));
    return;
  }
  const table = Data.tables[change[0]] ?? { name: "?", columns: [], key: [], number: change[0] };
  const isWide = table.columns.length > SIDE_BY_SIDE;
  let last = body.lastElementChild;
  if (last?.dataset.table !== String(table.number)) {
    const columns = table.columns.map((name, place) => element("th", table.key.includes(place) ? "key" : "", name));
    const heads = element("tr", "", element("th", "", say("op")), element("th", "", say("lsn")), ...columns);
    const grid = element("table", "", element("thead", "", heads), element("tbody", ""));
    last = isWide ? element("div", "records") : element("div", "wide", grid);
    last.dataset.table = String(table.number);
    body.append(element("h3", "", tableName(table)), last);
  }
  if (isWide) last.append(recordElement(change, table)); else last.querySelector("tbody").append(rowElement(change, table));
}

/** Shows the next rows of a transaction, and a button for more. */
async function addRows(body, state) {
  const { transaction, lines, filter } = state;
  let [shown, started] = [0, performance.now()];
  while (shown < 2 * PAGE) {
    const { value: line, done } = lines.next();
    if (done) break;
    const change = filter.change(line, state.isNamed);
    state.seen++;
    if (change) {
      addChange(body, change);
      shown++;
    }
    if (performance.now() - started < SLICE) continue;
    await pause();
    started = performance.now();
  }
  const all = transaction.head.listed;
  if (state.seen < all) {
    const more = element("button", "more", filter.isEmpty ? say("more", all - state.seen) : say("moreUnknown"));
    more.type = "button";
    more.addEventListener("click", () => {
      more.remove();
      addRows(body, state);
    });
    body.append(more);
  } else if (transaction.head.omitted > 0) {
    body.append(element("p", "dim", say("notListed", transaction.head.omitted)));
  } else if (all === 0) {
    body.append(element("p", "dim", say("noRows")));
  }
}

function transactionElement(transaction) {
  const { head } = transaction;
  const names = head.tables.slice(0, 4).map(number => Data.tables[number]).filter(Boolean).map(tableName);
  if (head.tables.length > names.length) names.push("…");
  const more = [head.gid && say("prepared", head.gid), head.origin && say("origin", head.origin)].filter(Boolean);
  const summary = element("summary", "", element("b", "", String(head.xid)), element("span", "", time(head.time) || say("noTime")),
    element("span", "counts", `+${head.rows[0]} ~${head.rows[1]} -${head.rows[2]}`), element("span", "", names.join(", ")),
    element("span", "dim", [head.database, head.lsn, ...more].filter(Boolean).join(" · ")));
  const body = element("div", "body");
  const made = element("details", "", summary, body);
  let isFilled = false;
  made.addEventListener("toggle", () => {
    if (isFilled || !made.open) return;
    isFilled = true;
    const filter = view.filter;
    addRows(body, { transaction, lines: Data.lines(transaction), filter, isNamed: filter.names(transaction), seen: 0 });
  });
  return made;
}

function showPage() {
  const { result } = view;
  const count = result ? result.found.length : Data.total;
  const pages = Math.max(1, Math.ceil(count / PAGE));
  view.page = Math.min(Math.max(view.page, 0), pages - 1);
  const first = view.page * PAGE;
  const numbers = Array.from({ length: Math.min(PAGE, count - first) }, (_, place) => result ? result.found[first + place] : first + place);
  const transactions = numbers.map(number => Data.transaction(number)).filter(Boolean);
  replace("list", ...(transactions.length > 0 ? transactions.map(transactionElement) : [element("p", "dim", view.part < 1 ? "" : say("nothing"))]));
  $("list").dataset.page = view.page;
  for (const node of document.querySelectorAll(".page")) node.textContent = say("page", view.page + 1, pages);
  for (const button of document.querySelectorAll("[data-go]")) {
    button.disabled = ["first", "back"].includes(button.dataset.go) ? view.page === 0 : view.page === pages - 1;
  }
  const searching = view.part < 1 ? ` (${say("searching", Math.floor(view.part * 100))})` : "";
  $("found").textContent = (result ? say("foundSome", count, Data.total, result.rows, Data.rows) : say("found", Data.total, Data.rows)) + searching;
}

// What the reader does.

async function applyFilter() {
  const current = ++view.search;
  const key = $("by-table").value;
  const tables = Data.tables.filter(one => JSON.stringify([one.database, one.name]) === key).map(one => one.number);
  markChosen();
  view.filter = new Filter($("by-text").value, tables, $("by-xid").value);
  Object.assign(view, { page: 0, result: null, part: 1 });
  if (!view.filter.isEmpty) {
    const isCurrent = () => current === view.search;
    const onFound = result => {
      const isLonger = (view.result?.found.length ?? 0) < PAGE && result.found.length > (view.result?.found.length ?? 0);
      Object.assign(view, { result: { ...result, found: [...result.found] }, part: result.part });
      if (isLonger) showPage(); else $("found").textContent = say("searching", Math.floor(result.part * 100));
    };
    const result = await search(view.filter, isCurrent, onFound);
    if (!result) return;
    Object.assign(view, { result, part: 1 });
  }
  showPage();
}

/** Unfolds the transactions of the page one after the other, so that each can be laid out alone. */
async function unfold() {
  for (const one of document.querySelectorAll("#list details")) {
    one.open = true;
    await pause();
  }
}

function showAll() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = say(node.dataset.t);
  $("language").textContent = say("language");
  document.title = say("title");
  showFacts();
  showLists();
  showPage();
}

addEventListener("DOMContentLoaded", () => {
  Data.read();
  let wait = 0;
  const later = () => {
    clearTimeout(wait);
    wait = setTimeout(applyFilter, 200);
  };
  const choose = event => {
    const row = event.target.closest("tr");
    if (!row || (event.key && event.key !== "Enter")) return;
    $("by-table").value = $("by-table").value === row.dataset.name ? "" : row.dataset.name;
    applyFilter();
  };
  $("by-text").addEventListener("input", later);
  $("by-xid").addEventListener("input", later);
  $("by-table").addEventListener("change", applyFilter);
  $("tables").tBodies[0].addEventListener("click", choose);
  $("tables").tBodies[0].addEventListener("keydown", choose);
  $("filter").addEventListener("submit", event => event.preventDefault());
  $("filter").addEventListener("reset", () => setTimeout(applyFilter));
  $("unfold").addEventListener("click", unfold);
  $("print").addEventListener("click", () => print());
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    showAll();
  });
  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => {
      const last = Number.MAX_SAFE_INTEGER;
      view.page = { first: 0, back: view.page - 1, on: view.page + 1, last }[button.dataset.go];
      showPage();
    });
  }
  showAll();
});
