//! Something that a writer keeps for each table.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lost::model::LostTable;

/// Pointers that are remembered. Whoever passes a new copy of the table with each row must not fill the memory.
const POINTERS: usize = 4096;

/// A value for each table. A table whose columns or file have changed counts as another one.
#[derive(Debug)]
pub(crate) struct PerTable<T> {
    values: Vec<T>,
    numbers: HashMap<Arc<LostTable>, usize>,
    /// Numbers by the address of the table, which the `Arc` keeps from being used again: comparing whole tables takes
    /// longer than writing a row.
    pointers: HashMap<usize, (Arc<LostTable>, usize)>,
}

impl<T> Default for PerTable<T> {
    fn default() -> PerTable<T> {
        PerTable { values: Vec::new(), numbers: HashMap::new(), pointers: HashMap::new() }
    }
}

impl<T> PerTable<T> {
    /// The value of a table, which is made when the table is seen for the first time. Tables are numbered from 0 in
    /// that order.
    pub(crate) fn get<E>(
        &mut self,
        table: &Arc<LostTable>,
        make: impl FnOnce(usize) -> Result<T, E>,
    ) -> Result<&mut T, E> {
        let number = match self.pointers.get(&Arc::as_ptr(table).addr()) {
            Some((_, number)) => *number,
            None => self.find(table, make)?,
        };
        Ok(&mut self.values[number])
    }

    /// All values, in the order of the tables' numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    fn find<E>(
        &mut self,
        table: &Arc<LostTable>,
        make: impl FnOnce(usize) -> Result<T, E>,
    ) -> Result<usize, E> {
        let number = match self.numbers.get(table) {
            Some(number) => *number,
            None => {
                let number = self.values.len();
                self.values.push(make(number)?);
                self.numbers.insert(table.clone(), number);
                number
            }
        };
        if self.pointers.len() == POINTERS {
            self.pointers.clear();
        }
        self.pointers.insert(Arc::as_ptr(table).addr(), (table.clone(), number));
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::lost::export::made_up::table;

    #[test]
    fn equal_tables_have_one_value_and_copies_do_not_pile_up() {
        let mut per_table = PerTable::default();
        let mut seen = Vec::new();
        for copy in 0..3 * POINTERS {
            let table = Arc::new(table("shop", "public", if copy % 2 == 0 { "a" } else { "b" }));
            let number = per_table.get(&table, Ok::<usize, Infallible>).unwrap();
            seen.push(*number);
        }
        assert_eq!(seen[..4], [0, 1, 0, 1]);
        assert!(per_table.values == [0, 1] && per_table.pointers.len() <= POINTERS);
    }

    #[test]
    fn a_table_whose_value_cannot_be_made_is_tried_again() {
        let mut per_table = PerTable::default();
        let table = Arc::new(table("shop", "public", "a"));
        assert_eq!(per_table.get(&table, |_| Err("full")), Err("full"));
        assert_eq!(per_table.get(&table, Ok::<usize, &str>), Ok(&mut 0));
    }
}
