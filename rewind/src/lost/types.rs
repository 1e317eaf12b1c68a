//! What is known of types and columns: what the catalogs of a database say, as decoding values needs it.

/// A type (`pg_type`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Type {
    /// Its OID.
    pub(crate) oid: u32,
    /// `typname`
    pub(crate) name: String,
    /// The name of its schema.
    pub(crate) schema: String,
    /// `typlen`: bytes; -1 for a varlena, -2 for a C string.
    pub(crate) length: i16,
    /// `typalign`: `c`, `s`, `i` or `d`.
    pub(crate) align: u8,
    /// `typtype`: `b` base, `c` composite, `d` domain, `e` enum, `m` multirange, `p` pseudo, `r` range.
    pub(crate) kind: u8,
    /// `typdelim`: between the elements of an array of this type.
    pub(crate) delimiter: u8,
    /// `typrelid`: the relation of a composite type; otherwise 0.
    pub(crate) relation: u32,
    /// `typelem`: the type of the elements; 0 if it has none. Arrays are the types with `length` -1 and an element.
    pub(crate) element: u32,
    /// `typbasetype`: the type that a domain is based on; otherwise 0.
    pub(crate) base: u32,
}

/// A column (`pg_attribute`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attribute {
    /// `attname`
    pub(crate) name: String,
    /// `atttypid`; 0 if the column was dropped.
    pub(crate) type_oid: u32,
    /// `attnum`, from 1.
    pub(crate) number: i16,
    /// `attlen`, also of a dropped column.
    pub(crate) length: i16,
    /// `attalign`, also of a dropped column.
    pub(crate) align: u8,
    /// `atttypmod`
    pub(crate) type_modifier: i32,
    /// `attisdropped`
    pub(crate) is_dropped: bool,
    /// `attgenerated` is not empty.
    pub(crate) is_generated: bool,
    /// `attnotnull`
    pub(crate) is_not_null: bool,
    /// The element of `attmissingval`: the value of the column in rows that are older than it. The bytes of the datum as they
    /// are stored in an array.
    pub(crate) missing: Option<Vec<u8>>,
}

/// The types of a database.
pub(crate) trait Types: Sync {
    /// A type by its OID.
    fn get(&self, oid: u32) -> Option<&Type>;

    /// The label of an enum's value, by the OID of its row in `pg_enum`.
    fn enum_label(&self, oid: u32) -> Option<&str>;

    /// The subtype of a range type (`rngsubtype`), by the OID of the range or of its multirange type.
    fn range_subtype(&self, oid: u32) -> Option<u32>;

    /// The columns of a composite type's relation, by their numbers, dropped ones among them.
    fn columns(&self, relation: u32) -> Option<&[Attribute]>;

    /// The name of the database's encoding as PostgreSQL prints it (`UTF8`, `EUC_CN`, `LATIN1`, `SQL_ASCII`, ...).
    fn encoding(&self) -> &str;

    /// The major version as in `server_version_num`, for example 150000.
    fn server_version_num(&self) -> u32;
}
