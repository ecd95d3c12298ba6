PRAGMA application_id = 1397900867;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE backups (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        uuid TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        mode TEXT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        created INTEGER NOT NULL,
        finished INTEGER,
        disk_designator TEXT NOT NULL,
        disk_serial TEXT NOT NULL,
        disk_url TEXT NOT NULL,
        disk_size INTEGER NOT NULL,
        tape_url TEXT NOT NULL,
        medium_serial TEXT NOT NULL,
        drive_serial TEXT NOT NULL,
        partition INTEGER NOT NULL,
        file INTEGER,
        first_block INTEGER NOT NULL,
        tape_block INTEGER NOT NULL,
        blocks INTEGER NOT NULL,
        size INTEGER NOT NULL,
        volume TEXT,
        consistency TEXT NOT NULL,
        generation INTEGER,
        parent TEXT NOT NULL,
        report TEXT NOT NULL
    );
INSERT INTO "backups" VALUES(1,'0a1b2c3d','0a1b2c3d-1111-4222-8333-444444444444','Daten','files','done','',1795389508521838367,1795389509521838367,'3000000000000001','','iscsi://array/iqn.2026-11.com.example:storage/0',2147483648,'iscsi://library/iqn.2026-11.com.example:storage/1','CART0001','',0,2,40,262144,1,8192,'{"file_system": "NTFS", "start": 1048576, "size": 1073741824, "sector_size": 512, "cluster_size": 4096, "label": "Daten", "serial": "0123", "dirty": false}','crash',3,'','{"moved_bytes": 600}');
CREATE TABLE digests (
        backup INTEGER NOT NULL,
        archive_offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        PRIMARY KEY (backup, archive_offset)
    ) WITHOUT ROWID;
INSERT INTO "digests" VALUES(1,0,262144,X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F');
CREATE TABLE extents (
        member INTEGER NOT NULL,
        start INTEGER NOT NULL,
        length INTEGER NOT NULL,
        archive_offset INTEGER,
        disk_offset INTEGER,
        PRIMARY KEY (member, start)
    ) WITHOUT ROWID;
INSERT INTO "extents" VALUES(4294967297,0,600,1536,NULL);
CREATE TABLE folders (
        key INTEGER PRIMARY KEY,
        parent INTEGER,
        path TEXT NOT NULL
    );
INSERT INTO "folders" VALUES(4294967297,NULL,'');
INSERT INTO "folders" VALUES(4294967298,4294967297,'Users');
CREATE TABLE members (
        key INTEGER PRIMARY KEY,
        folder INTEGER NOT NULL,
        name TEXT NOT NULL,
        stream TEXT NOT NULL,
        kind TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        header_offset INTEGER NOT NULL,
        end_offset INTEGER NOT NULL,
        link_target TEXT NOT NULL,
        number INTEGER,
        sequence INTEGER,
        server_bytes INTEGER NOT NULL,
        reason TEXT,
        damage TEXT NOT NULL,
        attributes BLOB NOT NULL,
        resident BLOB,
        compression_unit INTEGER NOT NULL,
        valid INTEGER
    );
INSERT INTO "members" VALUES(4294967297,4294967298,'a.txt','','file',600,1700000000123456700,512,2560,'',64,1,0,NULL,'',X'0008000000026E7466735F61636C0102',NULL,0,NULL);
INSERT INTO "members" VALUES(4294967298,4294967298,'a.txt','s','file',4,0,2560,4096,'',64,1,4,'resident','',X'',X'74696E79',0,NULL);
CREATE TABLE warnings (
        backup INTEGER NOT NULL,
        number INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (backup, number)
    ) WITHOUT ROWID;
INSERT INTO "warnings" VALUES(1,1,'the volume is dirty');
CREATE INDEX folders_by_path ON folders (path);
CREATE INDEX folders_by_parent ON folders (parent);
CREATE INDEX members_by_folder ON members (folder, name, stream);
COMMIT;
