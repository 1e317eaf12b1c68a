//! The result of `show pool_nodes` of kingbasecluster and pgpool-II, read by column name.

use kbrecover_rewind::source::Answer;

/// A node according to the pool.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolNode {
    /// `node_id`
    pub id: u32,
    /// `hostname`
    pub host: String,
    /// `port`
    pub port: u16,
    /// Whether the pool uses the node, according to `status`.
    pub is_up: bool,
    /// Whether it is the primary, according to `role`.
    pub is_primary: bool,
}

/// Reads the nodes from the result.
///
/// # Errors
/// A column is missing or a value is not valid; the text says which one.
pub(super) fn read(table: &Answer) -> Result<Vec<PoolNode>, String> {
    let column = |name: &str| {
        let place = table.columns.iter().position(|column| column.eq_ignore_ascii_case(name));
        place.ok_or_else(|| format!("the result of \"show pool_nodes\" has no column \"{name}\""))
    };
    let (id, host, port) = (column("node_id")?, column("hostname")?, column("port")?);
    let (status, role) = (column("status")?, column("role")?);
    let read = |row: &Vec<Option<String>>| {
        let text = |place: usize| row.get(place).and_then(Option::as_deref).unwrap_or_default().trim();
        Some(PoolNode {
            id: text(id).parse().ok()?,
            host: text(host).to_owned(),
            port: text(port).parse().ok()?,
            // kingbasecluster: up. pgpool-II: up or waiting, in old versions 2 or 1.
            is_up: matches!(text(status), "up" | "waiting" | "2" | "1"),
            is_primary: matches!(text(role), "primary" | "master"),
        })
    };
    table
        .rows
        .iter()
        .map(|row| {
            read(row).ok_or_else(|| {
                format!("the result of \"show pool_nodes\" has a row that is not valid: {row:?}")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Answer {
        let mut lines = text.lines();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let columns = cells(lines.next().unwrap());
        Answer { columns, rows: lines.map(|line| cells(line).into_iter().map(Some).collect()).collect() }
    }

    #[test]
    fn results_of_both_products_are_read() {
        let kingbase = table(
            "node_id |   hostname    | port  | status | lb_weight |  role   | select_cnt\n\
             0       | 192.168.1.101 | 54321 | up     | 0.333333  | primary | 0\n\
             1       | 192.168.1.102 | 54321 | down   | 0.333333  | standby | 0",
        );
        let pgpool = table(
            "node_id|hostname|port|status|pg_status|lb_weight|role|pg_role\n\
             0|192.168.1.101|54321|waiting|up|0.5|primary|primary\n\
             1|192.168.1.102|54321|down|down|0.5|standby|unknown",
        );
        let expected = [
            PoolNode { id: 0, host: "192.168.1.101".into(), port: 54321, is_up: true, is_primary: true },
            PoolNode { id: 1, host: "192.168.1.102".into(), port: 54321, is_up: false, is_primary: false },
        ];
        assert_eq!(read(&kingbase).unwrap(), expected);
        assert_eq!(read(&pgpool).unwrap(), expected);
    }

    #[test]
    fn other_results_are_rejected() {
        assert!(read(&table("a|b\n1|2")).unwrap_err().contains("node_id"));
        assert!(read(&table("node_id|hostname|port|status|role\nx|h|1|up|primary")).is_err());
    }
}
