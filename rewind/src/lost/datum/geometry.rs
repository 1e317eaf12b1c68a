//! Geometric types as text (`geo_ops.c`). Their numbers are `double precision`.

use super::float::float8;
use crate::lost::bytes::{bytes_at, count_at, i32_at};

/// The bytes of a point.
const POINT: usize = 16;
/// Where the points of a path start: behind the i32 of their number, the i32 that tells whether it is closed, and padding.
const PATH_HEADER: usize = 12;
/// Where the points of a polygon start: behind the i32 of their number and a box around them.
const POLYGON_HEADER: usize = 4 + 2 * POINT;

pub(super) fn point(bytes: &[u8]) -> Option<String> {
    points::<1>(bytes)
}

pub(super) fn boxed(bytes: &[u8]) -> Option<String> {
    points::<2>(bytes)
}

pub(super) fn segment(bytes: &[u8]) -> Option<String> {
    Some(format!("[{}]", points::<2>(bytes)?))
}

/// The coefficients of `Ax + By + C = 0`.
pub(super) fn line(bytes: &[u8]) -> Option<String> {
    let [a, b, c] = numbers(bytes)?;
    Some(format!("{{{a},{b},{c}}}"))
}

/// The center and the radius.
pub(super) fn circle(bytes: &[u8]) -> Option<String> {
    let [x, y, radius] = numbers(bytes)?;
    Some(format!("<({x},{y}),{radius}>"))
}

pub(super) fn path(bytes: &[u8]) -> Option<String> {
    let is_closed = i32_at(bytes, 4)? != 0;
    let points = counted(bytes, PATH_HEADER)?;
    Some(if is_closed { format!("({points})") } else { format!("[{points}]") })
}

pub(super) fn polygon(bytes: &[u8]) -> Option<String> {
    Some(format!("({})", counted(bytes, POLYGON_HEADER)?))
}

/// Points whose number stands at the beginning.
fn counted(bytes: &[u8], header: usize) -> Option<String> {
    let stored = bytes.get(header..)?;
    let points = stored.get(..count_at(bytes, 0)?.checked_mul(POINT)?)?;
    join(points)
}

fn points<const N: usize>(bytes: &[u8]) -> Option<String> {
    join(bytes.get(..N * POINT)?)
}

fn join(points: &[u8]) -> Option<String> {
    let point = |bytes| numbers(bytes).map(|[x, y]| format!("({x},{y})"));
    Some(points.chunks_exact(POINT).map(point).collect::<Option<Vec<_>>>()?.join(","))
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[String; N]> {
    let number = |index| bytes_at(bytes, 8 * index).map(|bytes| float8(f64::from_le_bytes(bytes)));
    let numbers: Vec<String> = (0..N).map(number).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(header: &[u8], numbers: &[f64]) -> Vec<u8> {
        header.iter().copied().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
    }

    #[test]
    fn what_has_a_fixed_length() {
        let bytes = stored(&[], &[1.0, -2.5, 3.0, 1e20]);
        assert_eq!(point(&bytes).as_deref(), Some("(1,-2.5)"));
        assert_eq!(boxed(&bytes).as_deref(), Some("(1,-2.5),(3,1e+20)"));
        assert_eq!(segment(&bytes).as_deref(), Some("[(1,-2.5),(3,1e+20)]"));
        assert_eq!(line(&bytes).as_deref(), Some("{1,-2.5,3}"));
        assert_eq!(circle(&bytes).as_deref(), Some("<(1,-2.5),3>"));
        for print in [point, boxed, segment, line, circle] {
            assert_eq!(print(&bytes[..15]), None);
        }
    }

    #[test]
    fn paths_and_polygons_have_any_number_of_points() {
        let header = |closed| [2, 0, 0, 0, closed, 0, 0, 0, 9, 9, 9, 9];
        let numbers = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(path(&stored(&header(1), &numbers)).as_deref(), Some("((1,2),(3,4))"));
        assert_eq!(path(&stored(&header(0), &numbers)).as_deref(), Some("[(1,2),(3,4)]"));
        assert_eq!(path(&stored(&header(0), &numbers[..3])), None);
        let numbers = [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(polygon(&stored(&[2, 0, 0, 0], &numbers)).as_deref(), Some("((1,2),(3,4))"));
        assert_eq!(polygon(&stored(&[0xff; 4], &numbers)), None);
    }
}
