/* Answers points. Keys are looked up as text, which is enough where the line has numbers alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double value(const char *line, const char *name) {
    char key[80];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(line, key);
    return found ? strtod(found + strlen(key), NULL) : NAN;
}

int main(void) {
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        double rate = value(line, "rate");
        printf("{\"point\": %.0f, ", value(line, "point"));
        if (rate > 2)
            printf("\"error\": \"rate is above 2\"}\n");
        else
            printf("\"value\": %.17g}\n", exp(-rate) * value(line, "size"));
        fflush(stdout);
    }
    return 0;
}
