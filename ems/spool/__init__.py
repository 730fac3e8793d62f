"""Between a job and the database: batches of rows, their format in files, and the folder that holds these."""
