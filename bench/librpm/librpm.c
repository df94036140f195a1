// What a program in C on librpm does with packages: read each header and look
// at every file digest, with the signature checked or not.
#include <rpm/rpmlib.h>
#include <rpm/rpmmacro.h>
#include <rpm/rpmts.h>
#include <rpm/rpmfi.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	int check = argc > 1 && !strcmp(argv[1], "check");
	unsigned long files = 0;
	char dbpath[4096];

	rpmReadConfigFiles(NULL, NULL);
	snprintf(dbpath, sizeof(dbpath), "_dbpath %s", argc > 2 ? argv[2] : "");
	rpmDefineMacro(NULL, dbpath, 0);
	rpmts ts = rpmtsCreate();
	rpmtsSetRootDir(ts, "/");
	// the payload is nobody's business here
	rpmtsSetVSFlags(ts, check ? RPMVSF_MASK_NOPAYLOAD : ~0);
	for (int i = 3; i < argc; i++) {
		FD_t fd = Fopen(argv[i], "r.ufdio");
		Header h = NULL;
		int rc = rpmReadPackageFile(ts, fd, argv[i], &h);
		if (!h || (check && rc != RPMRC_OK)) {
			fprintf(stderr, "%s: %d\n", argv[i], rc);
			return 1;
		}
		rpmfi fi = rpmfiNew(ts, h, RPMTAG_BASENAMES, 0);
		while (rpmfiNext(fi) >= 0) {
			int algo;
			size_t size;
			files += rpmfiFDigest(fi, &algo, &size) != NULL;
		}
		rpmfiFree(fi);
		headerFree(h);
		Fclose(fd);
	}
	printf("%lu\n", files);
	return files == 0;
}
