// Reads what was lost from the blocks of this file. A block is parsed when it is needed.

/** Transactions in a page. */
const PAGE = 50;
/** Milliseconds of work at a time. */
const SLICE = 12;
/** Blocks that stay parsed. */
const PARSED = 16;

const $ = id => document.getElementById(id);
const pause = () => new Promise(go => setTimeout(go));

/** The lines of a block, without a last one that was cut off. */
function linesOf(node) {
  return node.textContent.split("\n").filter(line => line !== "");
}

function parsed(text, otherwise) {
  try {
    return JSON.parse(text);
  } catch {
    return otherwise;
  }
}

const Data = {
  head: {}, tail: {}, tables: [], blocks: [], pieces: new Map(), total: 0, rows: 0, cache: new Map(), known: null,

  /** Finds the blocks. */
  read() {
    const one = id => parsed($(id)?.textContent ?? "", {});
    this.head = one("data-head");
    this.tail = one("data-tail");
    for (const node of document.querySelectorAll("script.table")) {
      const table = parsed(node.textContent, null);
      if (table) this.tables[table.number] = table;
    }
    for (const node of document.querySelectorAll("script.block")) {
      const count = Number(node.dataset.count);
      this.blocks.push({ node, first: this.total, count });
      this.total += count;
      this.rows += Number(node.dataset.rows);
    }
    for (const node of document.querySelectorAll("script.rows")) {
      const number = Number(node.dataset.transaction);
      if (!this.pieces.has(number)) this.pieces.set(number, []);
      this.pieces.get(number).push(node);
    }
  },

  /** The transactions of a block: {number, head, lines}. */
  block(place) {
    const known = this.cache.get(place);
    if (known) return known;
    const { node, first } = this.blocks[place];
    const lines = linesOf(node);
    const found = [];
    for (let at = 0; at < lines.length;) {
      const head = parsed(lines[at], null);
      if (!head) break;
      const end = at + 1 + head.lines;
      found.push({ number: first + found.length, head, lines: lines.slice(at + 1, end) });
      at = end;
    }
    if (this.cache.size >= PARSED) this.cache.delete(this.cache.keys().next().value);
    this.cache.set(place, found);
    return found;
  },

  /** A transaction by its number. */
  transaction(number) {
    let [low, high] = [0, this.blocks.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.blocks[middle].first <= number) low = middle; else high = middle - 1;
    }
    const found = this.blocks[low] && this.block(low)[number - this.blocks[low].first];
    return found ?? null;
  },

  /** What the new primary has for the keys of a change: names of states, or nothing where it was not asked. */
  states([number, , , , before, after]) {
    const table = this.tables[number];
    if (!table || table.key.length === 0) return [];
    const keyOf = values => JSON.stringify(table.key.map(place => {
      const value = values[place];
      const isAsBefore = value === 0 || (Array.isArray(value) && value[0] === "u");
      return isAsBefore ? before?.[place] : value;
    }));
    const keys = new Set([before, after].filter(values => values).map(keyOf));
    return [...keys].map(key => this.source().get(`${table.database}\n${table.name}\n${key}`)).filter(state => state);
  },

  /** The states of all keys. They are read when a row is shown for the first time. */
  source() {
    if (this.known) return this.known;
    this.known = new Map();
    for (const node of document.querySelectorAll("script.source")) {
      for (const line of linesOf(node)) {
        const [number, key, state] = parsed(line, []);
        const table = this.tables[number];
        if (!table) continue;
        const name = `${table.database}\n${table.name}\n${JSON.stringify(key)}`;
        // Masked and shortened keys may look alike: then it is not known whose state it is.
        this.known.set(name, this.known.has(name) && this.known.get(name) !== state ? null : state);
      }
    }
    return this.known;
  },

  /** All lines of a transaction's changes, in their order. */
  *lines(transaction) {
    for (const node of this.pieces.get(transaction.number) ?? []) yield* linesOf(node);
    yield* transaction.lines;
  },
};

/** What is searched for: a text; a table, which has several numbers if its columns have changed; a transaction's ID. */
class Filter {
  constructor(text, tables, xid) {
    this.text = text.trim().toLowerCase();
    this.tables = tables;
    this.xid = xid.trim();
    // A line that does not have this cannot match; it is parsed only then.
    this.raw = JSON.stringify(this.text).slice(1, -1).replaceAll("<", "\\u003c");
  }

  get isEmpty() {
    return this.text === "" && !this.hasTable && this.xid === "";
  }

  get hasTable() {
    return this.tables.length > 0;
  }

  /** Whether the transaction itself can match. */
  takes({ head }) {
    const ids = [head.xid, ...head.subxids].map(String);
    const isTable = !this.hasTable || head.tables.some(number => this.tables.includes(number));
    return isTable && (this.xid === "" || ids.includes(this.xid));
  }

  /** Whether the text is in what is shown of the transaction itself: then all of its rows are shown. */
  names({ head }) {
    const shown = [String(head.xid), head.lsn, time(head.time), head.database, head.origin, head.gid];
    return this.text === "" || shown.some(value => value?.toLowerCase().includes(this.text));
  }

  /** The change if it matches, otherwise null. */
  change(line, isNamed) {
    if (!isNamed && !line.toLowerCase().includes(this.raw)) return null;
    const change = parsed(line, null);
    if (!change) return null;
    const isRow = Array.isArray(change);
    if (this.hasTable && (!isRow || !this.tables.includes(change[0]))) return null;
    return isNamed || this.isIn(change, isRow) ? change : null;
  }

  isIn(change, isRow) {
    const has = value => typeof value === "string" && value.toLowerCase().includes(this.text);
    if (!isRow) return [change.name, change.old_name, change.kind, change.last_value, change.lsn].some(has);
    const inValue = value => has(value) || (Array.isArray(value) && ["b", "s"].includes(value[0]) && has(value[1]));
    const table = Data.tables[change[0]];
    return has(change[2]) || has(table?.name) || [change[4], change[5]].some(values => values?.some(inValue));
  }
}

/** The transactions that match, with the number of their matching rows; `onFound` is called now and then. */
async function search(filter, isCurrent, onFound) {
  const found = [];
  let [rows, started] = [0, performance.now()];
  for (let place = 0; place < Data.blocks.length; place++) {
    for (const transaction of Data.block(place)) {
      if (!filter.takes(transaction)) continue;
      const isNamed = filter.names(transaction);
      let matching = 0;
      if (isNamed && !filter.hasTable) {
        matching = transaction.head.rows.reduce((sum, rows) => sum + rows, 0);
      } else {
        for (const line of Data.lines(transaction)) {
          if (filter.change(line, isNamed)) matching++;
          if (performance.now() - started < SLICE) continue;
          await pause();
          if (!isCurrent()) return null;
          started = performance.now();
        }
      }
      if (matching > 0 || (isNamed && !filter.hasTable)) {
        found.push(transaction.number);
        rows += matching;
      }
    }
    if (performance.now() - started >= SLICE) {
      onFound({ found, rows, part: (place + 1) / Data.blocks.length });
      await pause();
      if (!isCurrent()) return null;
      started = performance.now();
    }
  }
  return { found, rows, part: 1 };
}

/** A time for people: in UTC, without the letters of ISO 8601. */
function time(iso) {
  return iso ? iso.replace("T", " ").replace("Z", " UTC") : "";
}
