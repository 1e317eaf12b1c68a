//! The types that every server has, by their OIDs (`pg_type.dat`). OIDs below 10000 are the same in all versions.

use super::encoding::Encoding;
use super::float::{float4, float8};
use super::text_search::{tsquery, tsvector};
use super::{datetime, geometry, interval, jsonb, network, numeric, scalar, xml};
use crate::lost::bytes::bytes_at;

/// How the values of a type are printed.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// By their bytes alone.
    Plain(fn(&[u8]) -> Option<String>),
    /// By the version of the server, as `server_version_num` says it.
    ByVersion(fn(&[u8], u32) -> Option<String>),
    /// By the encoding of the database.
    Encoded(fn(&[u8], Encoding) -> Option<String>),
}

/// The form of a built-in type. `None`: it is another type, or one of those that are not printed (`aclitem`, `jsonpath`,
/// `gtsvector`, statistics, and `abstime` and its like, which ended with 11). Arrays, ranges and composite types are not among
/// these: they are recognized by what they are made of.
pub(super) fn form(type_oid: u32) -> Option<Form> {
    plain(type_oid).map(Form::Plain).or_else(|| {
        Some(match type_oid {
            18 => Form::ByVersion(scalar::char),
            1186 => Form::ByVersion(interval::interval),
            3220 => Form::ByVersion(scalar::pg_lsn),
            19 => Form::Encoded(name),
            // text, json, pg_node_tree, unknown, bpchar, varchar, refcursor, cstring
            25 | 114 | 194 | 705 | 1042 | 1043 | 1790 | 2275 => Form::Encoded(text),
            142 => Form::Encoded(xml::xml),
            3614 => Form::Encoded(tsvector),
            3615 => Form::Encoded(tsquery),
            3802 => Form::Encoded(jsonb::jsonb),
            _ => return None,
        })
    })
}

fn plain(type_oid: u32) -> Option<fn(&[u8]) -> Option<String>> {
    Some(match type_oid {
        16 => scalar::boolean,
        17 => scalar::bytea,
        20 => scalar::int8,
        21 => scalar::int2,
        22 => scalar::int2vector,
        23 => scalar::int4,
        // oid, xid, cid
        26 | 28 | 29 => scalar::unsigned4,
        // regproc, regprocedure, regoper, regoperator, regclass, regtype
        24 | 2202..=2206 => scalar::object,
        // regconfig, regdictionary, regnamespace, regrole, regcollation
        3734 | 3769 | 4089 | 4096 | 4191 => scalar::object,
        27 => scalar::tid,
        30 => scalar::oidvector,
        600 => geometry::point,
        601 => geometry::segment,
        602 => geometry::path,
        603 => geometry::boxed,
        604 => geometry::polygon,
        628 => geometry::line,
        718 => geometry::circle,
        650 => network::cidr,
        869 => network::inet,
        774 => network::macaddr8,
        829 => network::macaddr,
        700 => real,
        701 => double_precision,
        790 => scalar::money,
        1700 => numeric::numeric,
        1082 => datetime::date,
        1083 => datetime::time,
        1114 => datetime::timestamp,
        1184 => datetime::timestamptz,
        1266 => datetime::timetz,
        // bit, varbit
        1560 | 1562 => scalar::bits,
        2950 => scalar::uuid,
        // txid_snapshot, pg_snapshot
        2970 | 5038 => scalar::snapshot,
        // xid8
        5069 => scalar::unsigned8,
        _ => return None,
    })
}

fn real(bytes: &[u8]) -> Option<String> {
    bytes_at(bytes, 0).map(f32::from_le_bytes).map(float4)
}

fn double_precision(bytes: &[u8]) -> Option<String> {
    bytes_at(bytes, 0).map(f64::from_le_bytes).map(float8)
}

fn text(bytes: &[u8], encoding: Encoding) -> Option<String> {
    encoding.decode(bytes)
}

/// 64 bytes, or more in some forks, filled up with NULs.
fn name(bytes: &[u8], encoding: Encoding) -> Option<String> {
    encoding.decode(bytes.split(|byte| *byte == 0).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(type_oid: u32, bytes: &[u8]) -> Option<String> {
        match form(type_oid)? {
            Form::Plain(print) => print(bytes),
            Form::ByVersion(print) => print(bytes, 150_000),
            Form::Encoded(print) => print(bytes, Encoding::Utf8),
        }
    }

    #[test]
    fn types_are_known_by_their_oids() {
        for (type_oid, bytes, text) in [
            (16, &[1][..], "t"),
            (17, &[0xab], "\\xab"),
            (18, b"x", "x"),
            (19, b"ab\0\0c", "ab"),
            (25, b"abc", "abc"),
            (700, &[0, 0, 0xc0, 0x3f], "1.5"),
            (701, &[0, 0, 0, 0, 0, 0, 0xf8, 0xbf], "-1.5"),
            (1042, b"abc  ", "abc  "),
            (1700, &[0, 0x80, 7, 0], "7"),
            (2205, &[1, 0, 0, 0], "1"),
        ] {
            assert_eq!(print(type_oid, bytes).as_deref(), Some(text), "{type_oid}");
        }
        assert!(form(1033).is_none());
        assert!(form(16_384).is_none());
    }

    /// Whatever the bytes are, it ends, and without a panic.
    #[test]
    fn no_bytes_are_too_strange() {
        let mut number = 7u32;
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        for round in 0..200 {
            let mut bytes: Vec<u8> = (0..next() % 80).map(|_| next()).collect();
            // Small counts get further than large ones.
            if round % 2 == 0 {
                bytes.iter_mut().take(32).skip(1).for_each(|byte| *byte &= 3);
            }
            for type_oid in 0..6000 {
                print(type_oid, &bytes);
            }
        }
    }
}
