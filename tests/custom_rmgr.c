/*
 * An extension with a resource manager of its own, for tests/custom_rmgr.rs: its records change one byte of a row. Those of
 * one kind do not refer to the block that they change, as no record of PostgreSQL's own does.
 *
 * Written for PostgreSQL 15; built by tests/other_sizes.sh.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

/* Not reserved for anybody we know of: 128 and up are for extensions. */
#define CUSTOM_RMGR_ID 200

/* Which byte of the page becomes what: the main data of a record that refers to the block. */
typedef struct ByteChange
{
	uint16		offset;
	char		value;
} ByteChange;

/* The main data of a record that does not. */
typedef struct UnreferencedChange
{
	RelFileNode node;
	BlockNumber block;
	ByteChange	change;
} UnreferencedChange;

#define REFERENCED 0x00
#define UNREFERENCED 0x10

static void
redo_unreferenced(XLogReaderState *record)
{
	UnreferencedChange what;
	Buffer		buffer;

	memcpy(&what, XLogRecGetData(record), sizeof(what));
	buffer = XLogReadBufferExtended(what.node, MAIN_FORKNUM, what.block, RBM_NORMAL, InvalidBuffer);
	if (!BufferIsValid(buffer))
		return;
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	((char *) BufferGetPage(buffer))[what.change.offset] = what.change.value;
	MarkBufferDirty(buffer);
	UnlockReleaseBuffer(buffer);
}

static void
redo(XLogReaderState *record)
{
	ByteChange	change;
	Buffer		buffer;

	if ((XLogRecGetInfo(record) & ~XLR_INFO_MASK) == UNREFERENCED)
	{
		redo_unreferenced(record);
		return;
	}
	memcpy(&change, XLogRecGetData(record), sizeof(change));
	if (XLogReadBufferForRedo(record, 0, &buffer) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buffer);

		((char *) page)[change.offset] = change.value;
		PageSetLSN(page, record->EndRecPtr);
		MarkBufferDirty(buffer);
	}
	if (BufferIsValid(buffer))
		UnlockReleaseBuffer(buffer);
}

static void
describe(StringInfo text, XLogReaderState *record)
{
	appendStringInfoString(text, "one byte");
}

static const char *
identify(uint8 info)
{
	return "BYTE";
}

static RmgrData manager = {
	.rm_name = "kbrecover_test",
	.rm_redo = redo,
	.rm_desc = describe,
	.rm_identify = identify,
};

void		_PG_init(void);

void
_PG_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		RegisterCustomRmgr(CUSTOM_RMGR_ID, &manager);
}

/* The last byte of the first row of a block becomes the first of a text. */
static void
change_last_byte(FunctionCallInfo fcinfo, uint8 info)
{
	Relation	relation = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	BlockNumber block = (BlockNumber) PG_GETARG_INT64(1);
	Buffer		buffer = ReadBuffer(relation, block);
	Page		page;
	ItemId		item;
	ByteChange	change = {0};
	XLogRecPtr	end;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	if (!ItemIdIsNormal(item))
		elog(ERROR, "the first line of the block is no row");
	change.offset = ItemIdGetOffset(item) + ItemIdGetLength(item) - 1;
	change.value = *VARDATA_ANY(PG_GETARG_TEXT_PP(2));

	START_CRIT_SECTION();
	((char *) page)[change.offset] = change.value;
	MarkBufferDirty(buffer);
	XLogBeginInsert();
	if (info == REFERENCED)
	{
		XLogRegisterData((char *) &change, sizeof(change));
		XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
		end = XLogInsert(CUSTOM_RMGR_ID, info);
		PageSetLSN(page, end);
	}
	else
	{
		UnreferencedChange what;

		memset(&what, 0, sizeof(what));
		what.node = relation->rd_node;
		what.block = block;
		what.change = change;
		XLogRegisterData((char *) &what, sizeof(what));
		XLogInsert(CUSTOM_RMGR_ID, info | XLR_SPECIAL_REL_UPDATE);
	}
	END_CRIT_SECTION();

	UnlockReleaseBuffer(buffer);
	relation_close(relation, RowExclusiveLock);
}

PG_FUNCTION_INFO_V1(change_byte);

/* change_byte(table oid, block bigint, value text) */
Datum
change_byte(PG_FUNCTION_ARGS)
{
	change_last_byte(fcinfo, REFERENCED);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(change_byte_unreferenced);

/* The same, and the record does not refer to the block. */
Datum
change_byte_unreferenced(PG_FUNCTION_ARGS)
{
	change_last_byte(fcinfo, UNREFERENCED);
	PG_RETURN_VOID();
}
