BEGIN TRANSACTION;
CREATE TABLE charge (
	experiment_id TEXT NOT NULL, 
	attempt BIGINT NOT NULL, 
	funding TEXT NOT NULL, 
	hours DOUBLE NOT NULL, 
	usd DOUBLE NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (experiment_id, attempt), 
	FOREIGN KEY(experiment_id, attempt) REFERENCES run (experiment_id, attempt), 
	FOREIGN KEY(funding) REFERENCES funding (id)
);
INSERT INTO "charge" VALUES('5f0c',1,'grant',1.94444444444444436816e-06,0.0,'2026-11-22 19:07:50.423000');
CREATE TABLE cluster (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE "digits" (experiment_id TEXT NOT NULL, point INTEGER NOT NULL, row INTEGER NOT NULL, "n" INTEGER, "loss"  /* DOUBLE, untyped to keep -0.0 */, "t" TEXT, "ok" BOOLEAN, PRIMARY KEY (experiment_id, point, row)) WITHOUT ROWID;
INSERT INTO "digits" VALUES('5f0c',0,0,1,0.25,'a',1);
INSERT INTO "digits" VALUES('5f0c',1,0,2,NULL,'é',NULL);
CREATE TABLE experiment (
	id TEXT NOT NULL, 
	stack TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	experimenter TEXT NOT NULL, 
	project TEXT NOT NULL, 
	funding TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	repository TEXT NOT NULL, 
	"commit" TEXT NOT NULL, 
	tree TEXT NOT NULL, 
	stack_file_commit TEXT NOT NULL, 
	environment TEXT NOT NULL, 
	environment_digest TEXT NOT NULL, 
	python TEXT NOT NULL, 
	cluster TEXT NOT NULL, 
	results_table TEXT NOT NULL, 
	points_total BIGINT NOT NULL, 
	max_hours DOUBLE, 
	limit_usd DOUBLE, 
	reviewed_attempt BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	attempt BIGINT NOT NULL, 
	wanted_attempt BIGINT NOT NULL, 
	points_done BIGINT NOT NULL, 
	points_failed BIGINT NOT NULL, 
	rows_stored BIGINT NOT NULL, 
	machines BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	cancel_requested BOOLEAN NOT NULL, 
	registered_at DATETIME NOT NULL, 
	deadline_at DATETIME, 
	started_at DATETIME, 
	finished_at DATETIME, 
	destroyed_at DATETIME, 
	error TEXT NOT NULL, 
	log_tail TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(experimenter) REFERENCES experimenter (id), 
	FOREIGN KEY(project) REFERENCES project (id), 
	FOREIGN KEY(funding) REFERENCES funding (id)
);
INSERT INTO "experiment" VALUES('5f0c','digits','d1','researcher','study','grant','{"a": 1}','https://example.org/lab.git','cccccccccccccccccccccccccccccccccccccccc','tttttttttttttttttttttttttttttttttttttttt','ssssssssssssssssssssssssssssssssssssssss','base','e1','3.11','laptop','digits',4,2.0,NULL,1,'failed',1,1,2,1,2,0,0.0,0,'2026-11-22 19:07:50.413000','2026-11-22 21:07:50.416000','2026-11-22 19:07:50.416000','2026-11-22 19:07:50.423000',NULL,'1 point failed','');
INSERT INTO "experiment" VALUES('other','other','d1','researcher','study','grant','{"a": 1}','https://example.org/lab.git','cccccccccccccccccccccccccccccccccccccccc','tttttttttttttttttttttttttttttttttttttttt','ssssssssssssssssssssssssssssssssssssssss','base','e1','3.11','laptop','digits',8,NULL,NULL,1,'registered',0,1,0,0,0,0,0.0,0,'2026-11-22 19:07:50.426000',NULL,NULL,NULL,NULL,'','');
CREATE TABLE experimenter (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	email TEXT NOT NULL, 
	github TEXT NOT NULL, 
	gcp_account TEXT NOT NULL, 
	aws_account TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "experimenter" VALUES('researcher','A Researcher','researcher@example.org','','','');
CREATE TABLE funding (
	id TEXT NOT NULL, 
	agency TEXT NOT NULL, 
	award TEXT NOT NULL, 
	budget_usd DOUBLE, 
	expires DATE, 
	slurm_account TEXT NOT NULL, 
	gcp_project TEXT NOT NULL, 
	aws_account TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "funding" VALUES('grant','An agency','',NULL,NULL,'','','');
CREATE TABLE point (
	experiment_id TEXT NOT NULL, 
	point BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	parameters JSON NOT NULL, 
	error TEXT NOT NULL, 
	PRIMARY KEY (experiment_id, point), 
	FOREIGN KEY(experiment_id) REFERENCES experiment (id)
);
INSERT INTO "point" VALUES('5f0c',3,'failed','{"seed": 3}','ValueError: no');
CREATE TABLE project (
	id TEXT NOT NULL, 
	title TEXT NOT NULL, 
	parent TEXT, 
	description TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent) REFERENCES project (id)
);
INSERT INTO "project" VALUES('study','A study',NULL,'');
CREATE TABLE run (
	experiment_id TEXT NOT NULL, 
	attempt BIGINT NOT NULL, 
	agent TEXT NOT NULL, 
	state TEXT NOT NULL, 
	claimed_at DATETIME NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	lease_until DATETIME NOT NULL, 
	finished_at DATETIME, 
	exit_code INTEGER, 
	error TEXT NOT NULL, 
	PRIMARY KEY (experiment_id, attempt), 
	FOREIGN KEY(experiment_id) REFERENCES experiment (id)
);
INSERT INTO "run" VALUES('5f0c',1,'a','failed','2026-11-22 19:07:50.416000','2026-11-22 19:07:50.423000','2026-11-22 20:07:50.420000','2026-11-22 19:07:50.423000',1,'1 point failed');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1);
CREATE INDEX ix_experiment_stack ON experiment (stack);
COMMIT;
