/*
 * An extension with a resource manager of its own, for tests/custom_rmgr.rs: its records change one byte of a row.
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

/* The record's main data: which byte of the page becomes what. */
typedef struct ByteChange
{
	uint16		offset;
	char		value;
} ByteChange;

static void
redo(XLogReaderState *record)
{
	ByteChange	change;
	Buffer		buffer;

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

PG_FUNCTION_INFO_V1(change_byte);

/* change_byte(table oid, block bigint, value text): the last byte of the first row of the block becomes the first of value. */
Datum
change_byte(PG_FUNCTION_ARGS)
{
	Relation	relation = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	Buffer		buffer = ReadBuffer(relation, (BlockNumber) PG_GETARG_INT64(1));
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
	XLogRegisterData((char *) &change, sizeof(change));
	XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
	end = XLogInsert(CUSTOM_RMGR_ID, 0);
	PageSetLSN(page, end);
	END_CRIT_SECTION();

	UnlockReleaseBuffer(buffer);
	relation_close(relation, RowExclusiveLock);
	PG_RETURN_VOID();
}
