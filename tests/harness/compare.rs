//! Equal content: every row of every table, catalogs included, in every database of two servers.

use std::collections::BTreeMap;

use super::server::Server;

/// All logged tables. What TOAST tables hold is seen through the tables they belong to.
const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' ORDER BY 1";

/// What WAL promises of a sequence. WAL runs ahead by up to 32 values, so a standby's last_value may lie ahead of its
/// primary's while log_cnt lies behind by as much: the sum is what both agree on.
const SEQUENCES: &str = "
    SELECT format('SELECT last_value + log_cnt * %s FROM %I.%I', s.seqincrement, n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
    WHERE c.relpersistence = 'p' ORDER BY 1";

/// Panics, naming every table that differs, unless both servers hold the same. Neither may change meanwhile.
pub fn assert_same_content(one: &Server, other: &Server) {
    let databases = |server: &Server| {
        server.column("SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1")
    };
    assert_eq!(databases(one), databases(other), "databases of {} and {}", one.name, other.name);
    for database in databases(one) {
        let (left, right) = (content(one, &database), content(other, &database));
        let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
        let differences: Vec<String> = names
            .into_iter()
            .filter(|name| left.get(*name) != right.get(*name))
            .map(|name| format!("{name}: {:?} and {:?}", left.get(name), right.get(name)))
            .collect();
        let differences = differences.join("\n");
        assert!(
            differences.is_empty(),
            "{} and {} differ in {database}:\n{differences}",
            one.name,
            other.name
        );
    }
}

/// Per table the number of rows and a hash that does not depend on their order; per sequence its value.
fn content(server: &Server, database: &str) -> BTreeMap<String, String> {
    let mut client = server.connect(database);
    let mut query = |query: &str| {
        let rows = client.query(query, &[]);
        rows.unwrap_or_else(|e| panic!("{}, database {database}: {e:?}\n{query}", server.name))
    };
    let tables: Vec<String> = query(TABLES).iter().map(|row| row.get(0)).collect();
    let hash_all = tables.iter().map(|table| {
        let name = table.replace('\'', "''");
        format!("SELECT '{name}', count(*) || ' rows, hash ' || coalesce(sum(('x' || md5(t::text))::bit(60)::bigint), 0) FROM ONLY {table} t")
    });
    let hash_all: Vec<String> = hash_all.collect();
    let mut content: BTreeMap<String, String> =
        query(&hash_all.join(" UNION ALL ")).iter().map(|row| (row.get(0), row.get(1))).collect();
    for read in query(SEQUENCES).iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>() {
        let value: i64 = query(&read)[0].get(0);
        content.insert(read, value.to_string());
    }
    content
}
